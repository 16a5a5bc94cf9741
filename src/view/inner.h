/*
 * view/inner.h
 *		Continuous views over continuous views: the outer one takes the closed windows of the inner one.
 *
 * The outer view has a stream of its own, which is known by the view's OID and is in no catalogue: its columns are the inner view's, its
 * records the rows of closed windows, its event time the column that is the window's start. sink/windows.c puts the rows into its
 * journal, once, as with streamext.into; from there it is a stream like any.
 */
#ifndef STREAMEXT_INNER_H
#define STREAMEXT_INNER_H

#include "base/streamext.h"
#include "base/stream_def.h"
#include "view/compile.h"

/* The continuous view whose closed windows the continuous view reads; InvalidOid: none. By its rule; takes AccessShareLock on it. */
extern Oid streamext_view_inner(Oid relid);

/* The stream at the end of the chain; InvalidOid: none. */
extern Oid streamext_view_root(Oid relid);

/* The continuous views that read the closed windows of this one, by the newest catalogue. Locks are left on no view. */
extern List *streamext_view_outers(Oid relid);

/* The output column that is the window's start; 0: none is. */
extern AttrNumber streamext_inner_window_column(const CompiledView *inner);

/* Raises if the view comes from itself by way of views and streams. */
extern void streamext_inner_check_circle(Oid relid);

/* What streamext_stream_config asks about views. */
extern void streamext_inner_install(void);

#endif /* STREAMEXT_INNER_H */
