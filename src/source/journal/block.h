/*
 * source/journal/block.h
 *		Many records of a stream as one of its journal's: what is taken in together is there whole or not at all, whatever happens.
 *
 * A block is a journal record. Its topic holds what all its records share: a name and its NUL, then further texts of who made it. Its
 * payload is entries back to back: size of the record's payload (32 bits), size of its head (32 bits), head, payload. What a head
 * is only its connector knows; a record's key is its head, or without one what the block has behind the name: so buffers and dead letters
 * keep it with the record, and metadata come from it wherever the record comes from. The position of a record is that of the block plus the offset of
 * its entry, so each has its own and
 * they ascend; the next position of the last one is where the journal goes on. All of a block has the same arrival, and if it is of rows
 * the same layout. A journal's record without a topic is no block but one record of the stream: builds before blocks of rows left such.
 *
 * A connector that reads blocks embeds BlockInbox first and takes the functions below as its ops (source/http/http.c).
 */
#ifndef STREAMEXT_BLOCK_H
#define STREAMEXT_BLOCK_H

#include "base/streamext.h"

#include "source/journal/inbox.h"

typedef struct BlockInbox
{
	JournalInbox  inbox;
	StreamRecord *blocks; /* of the last read */
	int			  nblocks;
	int			  block; /* the one whose entries come next, */
	uint32		  at;	 /* and the offset of that entry */
	int64		  from;	 /* records below this position were counted */
} BlockInbox;

/* ---- for who appends ---- */

/* How many bytes an entry takes. */
#define STREAMEXT_BLOCK_ENTRY(size, head_size) (2 * sizeof(uint32) + (Size) (size) + (head_size))

/* Adds an entry to the payload of a block. */
extern void streamext_block_add(StringInfo block, const char *payload, uint32 size, const char *head, uint32 head_size);

/* ---- ops ---- */

/* A BlockInbox, or of `size` bytes what begins with one. `name` names the partition. */
extern Connector *streamext_block_open(const ConnectorOps *ops, const ConnectorOpen *args, const char *name, Size size);
extern void		  streamext_block_seek(Connector *c, int index, int64 position);
extern int		  streamext_block_poll(Connector *c, StreamRecord *records, int max);

/* In a ConnectorOps; poll and commit are named beside them. */
#define STREAMEXT_BLOCK_OPS                                                                                         \
	.seek = streamext_block_seek, .release = streamext_inbox_release, .flush_target = streamext_inbox_flush_target, \
	.find = streamext_inbox_find, .ends = streamext_inbox_ends, .pause = streamext_inbox_pause,                     \
	.close = streamext_inbox_close

#endif /* STREAMEXT_BLOCK_H */
