/*
 * source/journal/journal_private.h
 *		What the files of the journal share: source/journal/journal.c (opening, recovery), source/journal/segment.c (files), source/journal/append.c (writing),
 *		source/journal/read.c (reading).
 *
 * Segment files are cut at multiples of 16 MB of the position, so that the file of a position follows from the position
 * alone and a writer's or reader's open file can never be a stale one: position p lies in the file named p - p % 16 MB. A
 * record that does not fit is preceded by a pad to the next multiple (the file is extended to full length, a hole); one
 * larger than a segment begins at a multiple and has its file to itself, the position after it is rounded up.
 *
 * The shared end is the only thing writers and readers agree on: it moves after the bytes are in the file, readers never
 * look beyond it.
 *
 * Everything but streamext_journal_read, and the log message of an open that repairs, is POSIX and malloc only. Append side and
 * read side of a handle share no fields, so one thread may append while another reads; `mutex` serialises appends.
 */
#ifndef STREAMEXT_JOURNAL_PRIVATE_H
#define STREAMEXT_JOURNAL_PRIVATE_H

#include <pthread.h>

#include "port/pg_crc32c.h"

#include "source/journal/journal.h"

#define JOURNAL_SEGMENT INT64CONST(16777216)
#define JOURNAL_MAGIC 0x314a5853 /* SXJ1 */
#define JOURNAL_UNKNOWN PG_UINT64_MAX
#define JOURNAL_BUFFER (1024 * 1024) /* bytes read or written at once */

typedef enum JournalKind
{
	JOURNAL_DATA = 1,
	JOURNAL_PAD = 2 /* the rest of the segment is empty */
} JournalKind;

typedef enum JournalHint
{
	JOURNAL_HINT_NONE,
	JOURNAL_HINT_COMMITTED,
	JOURNAL_HINT_ABORTED,
	JOURNAL_IN_PROGRESS /* never stored */
} JournalHint;

/* On disk before each record; payload, topic, a NUL and padding to 8 bytes follow. */
typedef struct JournalHeader
{
	uint32 magic;
	uint32 crc;	 /* of all that follows, hint taken as 0 */
	uint32 size; /* of the record, header included, multiple of 8 */
	uint8  kind;
	uint8  hint;
	uint8  qos;
	uint8  retained;
	uint64 fxid;
	int64  timestamp;
	uint64 row_type_hash;
	uint32 payload_size;
	uint16 topic_size;
	uint16 packet_id;
	int64  position;
} JournalHeader;

StaticAssertDecl(sizeof(JournalHeader) == 56, "the journal's record header has no padding");

#define JOURNAL_ALIGN(size) (((uint64) (size) + 7) & ~UINT64CONST(7))
#define JOURNAL_FIRST(position) ((position) - (position) % JOURNAL_SEGMENT)

/* The position after a record. */
static inline int64
journal_next(const JournalHeader *header, int64 position)
{
	if (header->kind == JOURNAL_PAD)
		return JOURNAL_FIRST(position) + JOURNAL_SEGMENT;
	position += header->size;
	if (header->size > JOURNAL_SEGMENT)
		position = JOURNAL_FIRST(position + JOURNAL_SEGMENT - 1);
	return position;
}

/* True when no header fits before the segment's end: an unwritten pad. */
static inline bool
journal_at_segment_end(int64 position)
{
	return JOURNAL_SEGMENT - position % JOURNAL_SEGMENT < (int64) sizeof(JournalHeader);
}

struct Journal
{
	char			  directory[MAXPGPATH];
	bool			  writer;
	JournalMode		  mode;
	pg_atomic_uint64 *end;
	pthread_mutex_t	  mutex;

	/* append side, under mutex */
	int	   append_fd;	 /* -1: none */
	int64  append_first; /* its segment */
	char  *append_buffer;
	size_t append_capacity;
	size_t append_used;
	int64  append_position; /* of append_buffer[0] */
	int64  room_base;		/* where what counts for the limit began when it was last looked at, see journal_has_room */

	/* read side */
	int			read_fd;
	int64		read_first;
	char	   *read_buffer;
	size_t		read_capacity;
	size_t		read_size;
	int64		read_position; /* of read_buffer[0] */
	uint64		resolved_fxid; /* 0: none */
	JournalHint resolved;
	bool		durable;	 /* resolved will still hold after a crash */
	uint64		hinted_fxid; /* last one whose hint was written in this read */
	bool		warned;
};

/* ---- source/journal/segment.c ---- */

#define JOURNAL_PATH_SIZE (MAXPGPATH + 32)

extern void streamext_journal_path(const Journal *journal, int64 first, char path[JOURNAL_PATH_SIZE]);
/* -1 and errno on failure. */
extern int streamext_journal_open_file(const Journal *journal, int64 first, int flags);
/* First positions of the segments there are, ascending, malloc'd; -1 and errno on failure. No directory is no segment. */
extern int streamext_journal_list(const Journal *journal, int64 **firsts);
/* The names in the directory are on disk. False and errno on failure. */
extern bool streamext_journal_sync_directory(const char *directory);
/* The directory and those above it, durably; false and errno on failure. */
extern bool streamext_journal_make_directory(Oid dboid, const Journal *journal);
/* Bytes on disk of so many segments. */
extern int64 streamext_journal_segment_bytes(const Journal *journal, const int64 *firsts, int n);

/* ---- source/journal/read.c ---- */

extern uint32 streamext_journal_crc(const JournalHeader *header, const char *body);

/*
 * The whole record at position, checked, in the read buffer. NULL with errno EBADMSG or what the system said if there is none;
 * without `refill` NULL with errno EAGAIN if the buffer does not hold it.
 */
extern JournalHeader *streamext_journal_fetch(Journal *journal, int64 position, int64 limit, bool refill);

/* ---- source/journal/append.c ---- */

/*
 * Moves the end to a segment's beginning not before floor: what is left out between reads as pads. Segments of a pad and nothing
 * else take a block on disk each, until they are trimmed. False and errno on failure.
 */
extern bool streamext_journal_skip(Journal *journal, int64 floor);
extern void streamext_journal_close_append(Journal *journal);

/* ---- source/journal/journal.c ---- */

/* Finds the end and makes it known; a torn tail is cut off, *cut bytes. False and errno on failure. */
extern bool streamext_journal_recover(Journal *journal, int64 *cut);

#endif /* STREAMEXT_JOURNAL_PRIVATE_H */
