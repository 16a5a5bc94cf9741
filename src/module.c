/*-------------------------------------------------------------------------
 *
 * module.c
 *		_PG_init: what the library installs.
 *
 * Without shared_preload_libraries the library loads, does nothing, and CREATE EXTENSION says what is missing.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "miscadmin.h"

#include "sink/outbox.h"
#include "sql/commit.h"
#include "base/hooks.h"
#include "base/settings.h"
#include "shared/shmem.h"
#include "sink/spool.h"
#include "view/inner.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

void _PG_init(void);

void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	streamext_define_settings();
	streamext_shmem_install_hooks();
	streamext_ddl_install_hooks();
	streamext_inner_install();
	streamext_scan_install_hooks();
	streamext_spool_install_callbacks();
	streamext_registry_install_callbacks();
	streamext_outbox_install_callbacks();
	/* pg_upgrade wants its servers, of the old version and the new, for itself. */
	if (!IsBinaryUpgrade)
		streamext_launcher_register();
}
