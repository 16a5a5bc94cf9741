/*
 * view/doubts.h
 *		What CREATE VIEW says of a continuous view that is valid and hardly meant.
 */
#ifndef STREAMEXT_VIEW_DOUBTS_H
#define STREAMEXT_VIEW_DOUBTS_H

#include "base/streamext.h"

#include "stream/definition.h"
#include "view/compile.h"

/* Raises NOTICEs and WARNINGs, nothing else. */
extern void streamext_view_doubt(const CompiledView *view, const StreamConfig *config);

#endif /* STREAMEXT_VIEW_DOUBTS_H */
