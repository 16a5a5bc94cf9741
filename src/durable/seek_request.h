/*
 * durable/seek_request.h
 *		Rows of streamext_internal.seek_request: that a shard of a stream shall go on at another position (worker/seek.c has what that means).
 *
 * A row is written by a session (sql/seek.c), done by the shard's worker in the order of the numbers, and deleted when a committed checkpoint
 * holds its number.
 */
#ifndef STREAMEXT_SEEK_REQUEST_H
#define STREAMEXT_SEEK_REQUEST_H

#include "base/streamext.h"
#include "nodes/pg_list.h"
#include "source/connector.h"

/* Positions of partitions, as three arrays in a row. */
typedef struct SeekPositions
{
	int	   n;
	Datum *topics;
	Datum *numbers;
	Datum *positions;
} SeekPositions;

typedef struct SeekRequest
{
	int64		id;
	SeekKind	kind;
	TimestampTz time;
	char	   *topic; /* SEEK_OFFSET */
	int32		partition;
	int64		offset;
	bool		rebuild;
	bool		accept;

	SeekPositions former; /* where the shard's partitions were when it was asked */
	bool		  resolved;
	SeekPositions targets; /* where they shall be, once the source has said so */
} SeekRequest;

/* Arrays for so many, palloc'd. */
extern void streamext_seek_make_positions(SeekPositions *positions, int n);

/* -1: not among them. */
extern int64 streamext_seek_position(const SeekPositions *positions, const char *topic, int32 partition);

/*
 * What is to be done of the shard's with a number above `after`, of this source, palloc'd in cxt; what a checkpoint with the number `settled` holds
 * is deleted. In a transaction with a snapshot.
 */
extern List *streamext_seek_requests_load(Oid stream, int shard, int64 after, uint64 source, int64 settled,
										  MemoryContext cxt);

/* Keeps what the source has said, in this transaction. */
extern void streamext_seek_request_resolve(int64 id, const SeekPositions *targets);

/* One for a shard; its number is the table's. */
extern void streamext_seek_request_insert(Oid stream, int shard, uint64 source, const SeekRequest *request);

#endif /* STREAMEXT_SEEK_REQUEST_H */
