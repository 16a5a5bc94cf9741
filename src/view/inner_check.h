/*
 * view/inner_check.h
 *		What a continuous view whose closed windows are read by others may not be.
 */
#ifndef STREAMEXT_INNER_CHECK_H
#define STREAMEXT_INNER_CHECK_H

#include "view/compile.h"

/* Raises 0A000 unless the view's windows close, and their rows are the same whenever they are read. */
extern void streamext_inner_check(const CompiledView *inner);

#endif /* STREAMEXT_INNER_CHECK_H */
