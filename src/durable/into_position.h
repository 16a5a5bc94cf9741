/*
 * durable/into_position.h
 *		How far a view with streamext.into is, as committed together with its rows: in the tables streamext_internal.into_position, of a view without
 *		windows where it stands in each partition, and streamext_internal.into_window, of one with windows.
 */
#ifndef STREAMEXT_INTO_POSITION_H
#define STREAMEXT_INTO_POSITION_H

#include "base/streamext.h"
#include "decode/batch.h"
#include "shared/shmem.h"

/* Where a view stands in a partition, as committed. */
typedef struct IntoPosition
{
	char *topic;
	int	  partition;
	int64 position;
} IntoPosition;

/* The greatest position that any view has in the stream; 0: none. In a transaction. */
extern int64 streamext_into_highest(Oid stream);
/* Of a view without windows: the records that it has counted, which are kept with its positions; the view itself stands for all streams. In a transaction. */
extern void streamext_into_counts(Oid stream, Oid viewoid, uint64 *accepted, uint64 *rejected);
/* So many records that the view had rejected have their rows in the table now. Within SPI, in the transaction that writes these. */
extern void streamext_into_recount(Oid viewoid, const StreamConfig *config, const char *topic, int partition, int64 n);
/* The view's positions in the stream, or the part of UNION ALL (of IntoPosition), in the current memory context. */
extern List *streamext_into_load(Oid viewoid, const StreamConfig *config);
/*
 * In the transaction that writes the rows: the view, which stood at its slot's positions, is behind the batch. Raises 40001 if the table
 * says that it has been further: another process has written rows of the batch.
 */
extern void streamext_into_save(ViewSlot *slot, Batch *batch);

/* Up to which end the view's windows are in the table, as committed; DT_NOBEGIN: none. Needs a transaction. */
extern TimestampTz streamext_into_load_window(Oid viewoid);
/* In the transaction that writes the rows: they are of windows that end in (from, until]. */
extern void streamext_into_save_window(Oid viewoid, TimestampTz from, TimestampTz until);

#endif /* STREAMEXT_INTO_POSITION_H */
