/*
 * source/journal/journal_private.h
 *		What the files of the journal share: source/journal/journal.c (opening), source/journal/recover.c (the end), source/journal/segment.c (files),
 *		source/journal/record.c (one record), source/journal/append.c (writing), source/journal/read.c (reading).
 *
 * Segment files are cut at multiples of 16 MB of the position, so that the file of a position follows from the position
 * alone and a writer's or reader's open file can never be a stale one: position p lies in the file named p - p % 16 MB. A
 * record that does not fit is preceded by a pad to the next multiple (the file is extended to full length, a hole); one
 * larger than a segment begins at a multiple and has its file to itself, the position after it is rounded up.
 *
 * The shared end is the only thing writers and readers agree on: it moves after the bytes are in the file, readers never
 * look beyond it.
 *
 * On disk: records back to back from a segment's beginning, each a JournalHeader (56 bytes, as the machine has it) and its body, in all `size`
 * bytes, a multiple of 8. Body: payload_size bytes, topic_size bytes, a NUL; of a row that carries its layout zeros up to a multiple of 8 and the
 * layout (base/layout.h); zeros to the end. Kinds and magics:
 *		SXJ1 data		the payload is a message; or a row of a version before 1.1, then `layout` is a 32-bit hash of its columns' types, not 0
 *		SXJ1 pad		the rest of the segment is a hole
 *		SXJ2 data		the payload is a row; `layout` is the position of the record in the same segment, this one or an earlier one, that carries its layout
 * The first row of a segment carries its layout, and so does the first one after rows of another: what is trimmed takes no layout
 * along that is still wanted. A record is valid if and only if its position is what it says, its sizes agree, it ends before the journal does, and its
 * checksum is right; a row, if besides the record that it names is one of SXJ2 that is valid and names itself. The reader stops at what is
 * not valid and says that the journal is damaged there; whose transaction has not committed is passed over, be its layout in use or not.
 *
 * Everything but streamext_journal_read, and the log message of an open that repairs, is POSIX and malloc only. Append side and
 * read side of a handle share no fields, so one thread may append while another reads; `mutex` serialises appends.
 */
#ifndef STREAMEXT_JOURNAL_PRIVATE_H
#define STREAMEXT_JOURNAL_PRIVATE_H

#include <pthread.h>

#include "port/pg_crc32c.h"

#include "source/journal/journal.h"

#ifndef JOURNAL_SEGMENT /* the fuzzer has them smaller */
#define JOURNAL_SEGMENT INT64CONST(16777216)
#define JOURNAL_BUFFER (1024 * 1024) /* bytes read or written at once */
#endif
#define JOURNAL_LAST (PG_INT64_MAX / 2 / JOURNAL_SEGMENT * JOURNAL_SEGMENT) /* no file begins behind it */
#define JOURNAL_MAGIC 0x314a5853											/* SXJ1 */
#define JOURNAL_MAGIC_ROW 0x324a5853										/* SXJ2 */
#define JOURNAL_LAYOUTS 16 /* of a segment, known to a reader at once */
#define JOURNAL_UNKNOWN PG_UINT64_MAX

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
	uint32 crc;	 /* of all that follows, hint taken as 0; of SXJ2 with the magic */
	uint32 size; /* of the record, header included, multiple of 8 */
	uint8  kind;
	uint8  hint;
	uint8  qos;
	uint8  retained;
	uint64 fxid;
	int64  timestamp;
	uint64 layout; /* see above */
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

/* Where a row's layout lies in it, if it carries one. */
static inline Size
journal_layout_offset(const JournalHeader *header)
{
	return JOURNAL_ALIGN(sizeof(JournalHeader) + (uint64) header->payload_size + header->topic_size + 1);
}

static inline bool
journal_carries_layout(const JournalHeader *header)
{
	return header->magic == JOURNAL_MAGIC_ROW && header->layout == (uint64) header->position;
}

/* True when no header fits before the segment's end: an unwritten pad. */
static inline bool
journal_at_segment_end(int64 position)
{
	return JOURNAL_SEGMENT - position % JOURNAL_SEGMENT < (int64) sizeof(JournalHeader);
}

/* What a handle has read of a segment's file. */
typedef struct JournalReading
{
	int	   fd; /* -1: none */
	int64  first;
	char  *buffer;
	size_t capacity;
	size_t size;
	int64  position; /* of buffer[0] */
} JournalReading;

struct Journal
{
	char			  directory[MAXPGPATH];
	bool			  writer;
	JournalMode		  mode;
	pg_atomic_uint64 *end;
	pthread_mutex_t	  mutex;

	/* append side, under mutex */
	int		   append_fd;	 /* -1: none */
	int64	   append_first; /* its segment */
	char	  *append_buffer;
	size_t	   append_capacity;
	size_t	   append_used;
	int64	   append_position;	 /* of append_buffer[0] */
	RowLayout *append_layout;	 /* that of append_layout_at, malloc'd */
	int64	   append_layout_at; /* the record that carries it; -1: none */
	int64	   room_base; /* where what counts for the limit began when it was last looked at, see journal_has_room */

	/* read side */
	JournalReading	 read;
	uint64			 checked;					 /* bytes whose checksum was looked at */
	int64			 layout_at[JOURNAL_LAYOUTS]; /* records whose layouts are known; -1: none */
	const RowLayout *layouts[JOURNAL_LAYOUTS];
	int				 next_layout;
	uint64			 resolved_fxid; /* 0: none */
	JournalHint		 resolved;
	bool			 durable;	  /* resolved will still hold after a crash */
	uint64			 hinted_fxid; /* last one whose hint was written in this read */
	bool			 warned;
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

/* ---- source/journal/record.c ---- */

extern uint32 streamext_journal_crc(const JournalHeader *header, const char *body);

/*
 * The layout that the record at position of the segment that begins at first, whose file is fd, carries; malloc'd, sizes checked and no more. The
 * record ends at limit or before. NULL and errno: none. *header is the record's.
 */
extern RowLayout *streamext_journal_load_layout(int fd, int64 first, int64 position, int64 limit,
												JournalHeader *header);

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

/* ---- source/journal/recover.c ---- */

/* Finds the end and makes it known; a torn tail is cut off, *cut bytes. False and errno on failure. */
extern bool streamext_journal_recover(Journal *journal, int64 *cut);

#endif /* STREAMEXT_JOURNAL_PRIVATE_H */
