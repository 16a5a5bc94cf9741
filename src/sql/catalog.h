/*
 * sql/catalog.h
 *		What the files of the catalogue views share.
 *
 *	sql/catalog.c			copies of slots and checkpoints, who may see them
 *	sql/catalog_stream.c	streams, partitions, workers
 *	sql/catalog_view.c		views and their positions
 */
#ifndef STREAMEXT_CATALOG_H
#define STREAMEXT_CATALOG_H

#include "base/streamext.h"

#include "nodes/execnodes.h"

#include "base/transaction.h"
#include "shared/shmem.h"
#include "view/compile.h"

/* One shard of a stream. */
typedef struct ShardCopy
{
	int			   index;	   /* of the slot */
	StreamSlot	   slot;	   /* pointers in it are not to be followed */
	PartitionSlot *partitions; /* slot.npartitions */
} ShardCopy;

/* A view on one shard. */
typedef struct ViewCopy
{
	ViewStatus	status;
	char		last_error[STREAMEXT_MAX_MESSAGE];
	uint64		groups, panes, bytes, accepted, late, rejected, history_panes, history_bytes;
	TimestampTz sealed_until;
	TimestampTz watermark;	/* of the stream's shard; DT_NOBEGIN: not known */
	int64		first_pane; /* in memory, if panes > 0 */
	int64	   *positions;
	int			npositions;
	int			stream;			 /* index of the stream's slot */
	Oid			stream_relid;	 /* whose that is; 0: not known */
	TimestampTz catchup_started; /* 0: it is not behind */
	int64		catchup_rows,	 /* read since then, */
		catchup_left;			 /* and still to be read */
	TimestampTz		 checkpoint_at;
	int				 shard;
	bool			 ready;		   /* as ViewSlot.counted.ready */
	const ShardCopy *checkpointed; /* not ready: the partitions that positions are of; NULL: the slot's */
} ViewCopy;

typedef enum CatalogLook
{
	CATALOG_SEEN,
	CATALOG_HELD, /* undone, since another transaction holds what it needs */
	CATALOG_REFUSED /* undone, since it takes code of an ordinary role, or such as may take long, to evaluate constants (base/identity.h) */
} CatalogLook;

/*
 * Runs the step in a subtransaction. A statement waits half a second for other transactions in all, however much it looks at: what is monitored must not
 * depend on a lock that any role may take on what is its own.
 */
extern CatalogLook streamext_catalog_look(StreamextStep step, void *arg);

/* ShardCopies of all shards of a stream that have a slot, in the order of their numbers, or a checkpoint that nobody holds. */
extern List *streamext_catalog_copy_shards(Oid relid);

/* ViewCopies of all shards of a view that have a slot or a checkpoint. */
extern List *streamext_catalog_copy_views(Oid viewoid);
/* Of those that have a slot; takes no lock on relations. */
extern List *streamext_catalog_copy_view_slots(Oid viewoid);

/* NULL, with *error set, if the view cannot be compiled any more: one bad view does not hide the others. */
/* A topic as it is shown: of a part of UNION ALL (else InvalidOid) with its stream's name, as streamext.dead_letters has it. */
extern const char *streamext_catalog_topic(Oid part, const char *topic);

extern CompiledView *streamext_catalog_try_compile(Oid viewoid, char **error);

/* The state of a shard; a slot whose worker has gone keeps the last one. */
extern StreamState streamext_catalog_shard_state(const StreamSlot *slot);

/* Of several ShardCopies the state that needs an operator most. */
extern StreamState streamext_catalog_stream_state(List *shards);

/* Who may SELECT from the stream or view or has the rights of pg_read_all_stats (pg_monitor has them). */
extern bool streamext_catalog_may_see(Oid relid);

/* Calls `put` for each stream that the user may see. */
extern void streamext_catalog_scan_streams(ReturnSetInfo *rsinfo,
										   void (*put)(ReturnSetInfo *, Oid, const ConnectorOps *, List *));

/* Empty text is NULL. */
extern void streamext_catalog_put_text(Datum *values, bool *nulls, int column, const char *text);

/* So is no time: zero, or one of the infinities, which are all of this extension's own making. */
extern void streamext_catalog_put_time(Datum *values, bool *nulls, int column, TimestampTz time);

#endif /* STREAMEXT_CATALOG_H */
