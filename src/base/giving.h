/*
 * base/giving.h
 *		Which view gives the rows that this process inserts, while it does: the executor between the view and the table it inserts into
 *		carries no such word.
 */
#ifndef STREAMEXT_GIVING_H
#define STREAMEXT_GIVING_H

#include "postgres.h"

#include "nodes/pg_list.h"

typedef struct Giving
{
	Oid			view;	/* InvalidOid: a session's INSERT */
	List	   *keys;	/* of char *: its outputs that are group keys, but the window (of changes with it) */
	const char *window; /* the output that is the window; or NULL */

	/* Of changes (sink/emit.c): */
	int64 version; /* 0: rows that stay as they are */
	bool  gone;	   /* only the keys are there: they have left the view */
} Giving;

extern const Giving *streamext_giving(void);

/* Until end, or the next begin: an error leaves it, in a process that gives nothing else. What it points to must live as long. */
extern void streamext_giving_begin(const Giving *giving);
extern void streamext_giving_end(void);

#endif /* STREAMEXT_GIVING_H */
