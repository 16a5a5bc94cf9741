/*
 * shared/shmem.h
 *		The registry in shared memory, whole: its structs, its verbs, and its start-up.
 */
#ifndef STREAMEXT_SHMEM_H
#define STREAMEXT_SHMEM_H

#include "base/streamext.h"
#include "shared/gate.h"
#include "shared/gateway_slot.h"
#include "shared/slots.h"
#include "shared/stream_slot.h"
#include "shared/view_slot.h"

extern void streamext_shmem_install_hooks(void); /* from _PG_init */

#endif /* STREAMEXT_SHMEM_H */
