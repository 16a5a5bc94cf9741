/*
 * sink/changes_private.h
 *		What the files of sink/changes.h share: the reader of one view.
 */
#ifndef STREAMEXT_CHANGES_PRIVATE_H
#define STREAMEXT_CHANGES_PRIVATE_H

#include "base/streamext.h"

#include "shared/feed.h"
#include "sink/changes.h"
#include "view/compile.h"

/* @writers sink/changes_reader.c sink/changes.c */
struct ChangesReader
{
	Oid			  view;
	FeedIdentity  identity;
	List		 *keys;	  /* names of columns */
	char		 *query;  /* of all rows */
	const Window *window; /* lives as the reader does */
	bool  grouped; /* which rows are others now is told by the groups that were published, by time and by retention */
	bool  steady;  /* the answer changes with the view's state alone: not with time, not with other tables */
	int64 emit_interval;
	TimestampTz looked_at; /* of the last answer */
};

/* ---- sink/changes_look.c ---- */

/* A number that is another one after the view's state has changed; 0: not known. */
extern uint64 streamext_changes_version(const ChangesReader *reader);
/* Reads the view and takes what has changed into the feed, which is held. */
extern void streamext_changes_look(const ChangesReader *reader, FeedSlot *feed);

#endif /* STREAMEXT_CHANGES_PRIVATE_H */
