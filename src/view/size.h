/*
 * view/size.h
 *		How large a query is once views and WITH queries stand where they are named.
 */
#ifndef STREAMEXT_VIEW_SIZE_H
#define STREAMEXT_VIEW_SIZE_H

#include "postgres.h"

#include "nodes/parsenodes.h"

/* Entries of range tables there may be. */
#define STREAMEXT_MAX_ENTRIES 10000

/* So many there are; beyond the most, just more. In a time that grows with what is written. */
extern int streamext_query_size(const Query *query);

#endif /* STREAMEXT_VIEW_SIZE_H */
