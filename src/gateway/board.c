/*
 * gateway/board.c
 *		Events of a view, the newest of each key. What the functions promise is in gateway/board.h.
 *
 * The log holds them by number; where one was replaced or forgotten there is a hole, which keeps its number for the search, until more than
 * half are holes. Of keys that are gone some are kept, as the feed does it.
 */
#include "base/streamext.h"

#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "gateway/board.h"

#define BOARD_GONE_MIN 1000
#define BOARD_LAG_MIN 1000 /* numbers that a reader may lag behind, and */
#define BOARD_LAG_TIMES 4  /* so many times the keys: what it lacks was changed over and over */
#define BOARD_SLACK 1024
#define BOARD_RESET_SIZE 96

struct BoardEntry
{
	uint64 number;
	uint32 readers; /* that stand within it */
	uint32 key_size;
	uint32 size; /* of the event's text behind the key */
	bool   gone;
	bool   replaced;
	char   data[FLEXIBLE_ARRAY_MEMBER];
};

typedef struct BoardSlot
{
	uint64		number;
	BoardEntry *entry; /* NULL: a hole */
} BoardSlot;

typedef struct BoardKey
{
	const char *key; /* of the entry: hash key */
	uint32		key_size;
	BoardEntry *entry;
} BoardKey;

struct Board
{
	MemoryContext cxt;
	uint64		  incarnation; /* 0: nothing is there yet */
	uint64		  newest, floor;
	uint64		  settled; /* the newest at the end of the last look */
	HTAB		 *keys;
	BoardSlot	 *log;
	int			  used, capacity;
	int			  live, gone;
};

static uint32
board_hash(const void *key, Size size)
{
	const BoardKey *board_key = key;

	return hash_bytes((const unsigned char *) board_key->key, board_key->key_size);
}

static int
board_match(const void *a, const void *b, Size size)
{
	const BoardKey *x = a, *y = b;

	return x->key_size == y->key_size && memcmp(x->key, y->key, x->key_size) == 0 ? 0 : 1;
}

static HTAB *
board_make_keys(MemoryContext cxt)
{
	HASHCTL control = { .keysize = offsetof(BoardKey, entry),
						.entrysize = sizeof(BoardKey),
						.hash = board_hash,
						.match = board_match,
						.hcxt = cxt };

	return hash_create("streamext board", 256, &control, HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
}

Board *
streamext_board_create(MemoryContext parent)
{
	MemoryContext cxt = AllocSetContextCreate(parent, "streamext board", ALLOCSET_DEFAULT_SIZES);
	Board		 *board = MemoryContextAllocZero(cxt, sizeof(Board));

	board->cxt = cxt;
	board->keys = board_make_keys(cxt);
	return board;
}

void
streamext_board_free(Board *board)
{
	MemoryContextDelete(board->cxt);
}

Size
streamext_board_bytes(const Board *board)
{
	return MemoryContextMemAllocated(board->cxt, true);
}

/* ---- what is on it ---- */

static void
board_drop(BoardEntry *entry)
{
	entry->replaced = true;
	if (entry->readers == 0)
		pfree(entry);
}

void
streamext_board_reset(Board *board, uint64 incarnation, uint64 floor)
{
	for (int i = 0; i < board->used; i++)
		if (board->log[i].entry != NULL)
			board_drop(board->log[i].entry);
	hash_destroy(board->keys);
	board->keys = board_make_keys(board->cxt);
	board->used = board->live = board->gone = 0;
	board->incarnation = incarnation;
	board->floor = board->newest = board->settled = floor;
}

/* The first slot above the number. */
static int
board_find(const Board *board, uint64 number)
{
	int low = 0, high = board->used;

	while (low < high)
	{
		int middle = low + (high - low) / 2;

		if (board->log[middle].number > number)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

/* Out of the log; a hole stays. */
static void
board_take_out(Board *board, BoardEntry *entry)
{
	int at = board_find(board, entry->number) - 1;

	Assert(at >= 0 && board->log[at].entry == entry);
	board->log[at].entry = NULL;
	if (entry->gone)
		board->gone--;
	else
		board->live--;
}

static void
board_append(Board *board, BoardEntry *entry)
{
	if (board->used == board->capacity)
	{
		board->capacity = Max(board->capacity * 2, 256);
		board->log = board->log == NULL ? MemoryContextAllocHuge(board->cxt, sizeof(BoardSlot) * board->capacity)
										: repalloc_huge(board->log, sizeof(BoardSlot) * board->capacity);
	}
	board->log[board->used++] = (BoardSlot){ entry->number, entry };
	board->newest = entry->number;
	if (entry->gone)
		board->gone++;
	else
		board->live++;
}

static BoardEntry *
board_make(Board *board, bool gone, uint64 number, const char *key, uint32 key_size, const char *row, uint32 row_size)
{
	char		head[BOARD_RESET_SIZE];
	int			n = snprintf(head, sizeof(head), "event: %s\nid: %016llx-%llu\ndata: ", gone ? "delete" : "upsert",
							 (unsigned long long) board->incarnation, (unsigned long long) number);
	BoardEntry *entry = MemoryContextAllocHuge(board->cxt, offsetof(BoardEntry, data) + key_size + n + row_size + 2);

	entry->number = number;
	entry->readers = 0;
	entry->key_size = key_size;
	entry->size = n + row_size + 2;
	entry->gone = gone;
	entry->replaced = false;
	memcpy(entry->data, key, key_size);
	memcpy(entry->data + key_size, head, n);
	memcpy(entry->data + key_size + n, row, row_size);
	memcpy(entry->data + key_size + n + row_size, "\n\n", 2);
	return entry;
}

void
streamext_board_put(Board *board, bool gone, uint64 number, const char *key, uint32 key_size, const char *row,
					uint32 row_size)
{
	BoardEntry *entry = board_make(board, gone, number, key, key_size, row, row_size);
	BoardKey	probe = { entry->data, key_size, entry };
	bool		found;
	BoardKey   *known = hash_search(board->keys, &probe, HASH_ENTER, &found);

	if (found)
	{
		BoardEntry *old = known->entry;

		board_take_out(board, old);
		known->key = entry->data; /* the old one's goes with it */
		known->entry = entry;
		board_drop(old);
	}
	known->entry = entry;
	board_append(board, entry);
}

static void
board_forget(Board *board)
{
	int most = Max(BOARD_GONE_MIN, board->live);

	if (board->gone <= most)
		return;
	most /= 2; /* not at each look again */
	for (int i = 0; i < board->used && board->gone > most; i++)
	{
		BoardEntry *entry = board->log[i].entry;
		BoardKey	probe;

		if (board->log[i].number > board->settled)
			return;
		if (entry == NULL || !entry->gone)
			continue;
		probe.key = entry->data;
		probe.key_size = entry->key_size;
		(void) hash_search(board->keys, &probe, HASH_REMOVE, NULL);
		board->floor = entry->number;
		board_take_out(board, entry);
		board_drop(entry);
	}
}

static void
board_compact(Board *board)
{
	int to = 0;

	if (board->used < (board->live + board->gone) * 2 + BOARD_SLACK)
		return;
	for (int i = 0; i < board->used; i++)
		if (board->log[i].entry != NULL)
			board->log[to++] = board->log[i];
	board->used = to;
}

void
streamext_board_settle(Board *board)
{
	board_forget(board);
	board_compact(board);
	board->settled = board->newest;
}

/* ---- who reads it ---- */

static void
board_begin_anew(const Board *board, BoardPosition *position)
{
	position->incarnation = board->incarnation;
	position->number = 0;
	position->anew = board->newest;
	position->reset = true;
}

void
streamext_board_begin(const Board *board, BoardPosition *position, const char *token)
{
	unsigned long long incarnation, number;
	int				   length = 0;

	memset(position, 0, sizeof(BoardPosition));
	if (token == NULL || sscanf(token, "%16llx-%llu%n", &incarnation, &number, &length) != 2 || token[length] != '\0' ||
		incarnation != board->incarnation || number < board->floor || number > board->newest)
		board_begin_anew(board, position);
	else
	{
		position->incarnation = incarnation;
		position->number = number;
	}
}

static bool
board_is_lost(const Board *board, const BoardPosition *position)
{
	uint64 from = Max(position->number, position->anew);

	return position->incarnation != board->incarnation || from < board->floor ||
		   board->newest - from > Max(BOARD_LAG_MIN, BOARD_LAG_TIMES * (uint64) board->live);
}

/* The rest of the entry that the position is within, as far as there is room. */
static Size
board_read_entry(BoardPosition *position, char *buffer, Size size)
{
	BoardEntry *entry = position->entry;
	Size		n = Min(size, entry->size - position->offset);

	memcpy(buffer, entry->data + entry->key_size + position->offset, n);
	position->offset += n;
	if (position->offset == entry->size)
	{
		position->number = entry->number;
		streamext_board_leave(position);
	}
	return n;
}

/* The reset's own token: who has no more than it lacks all that is there. */
static Size
board_read_reset(const Board *board, BoardPosition *position, char *buffer)
{
	uint64 first = board->newest;

	for (int i = 0; i < board->used; i++)
		if (board->log[i].entry != NULL && !board->log[i].entry->gone)
		{
			first = board->log[i].number - 1;
			break;
		}
	position->reset = false;
	return snprintf(buffer, BOARD_RESET_SIZE, "event: reset\nid: %016llx-%llu\ndata: null\n\n",
					(unsigned long long) board->incarnation, (unsigned long long) first);
}

Size
streamext_board_read(Board *board, BoardPosition *position, char *buffer, Size size)
{
	Size n = 0;

	if (position->entry != NULL)
		n = board_read_entry(position, buffer, size);
	if (position->entry != NULL || board->incarnation == 0)
		return n;
	if (!position->reset && board_is_lost(board, position))
		board_begin_anew(board, position);
	if (position->reset)
	{
		if (size - n < BOARD_RESET_SIZE)
			return n;
		n += board_read_reset(board, position, buffer + n);
	}
	for (int i = board_find(board, position->number); i < board->used; i++)
	{
		BoardEntry *entry = board->log[i].entry;

		if (entry == NULL || (entry->gone && entry->number <= position->anew))
			continue;
		if (n == size)
			return n;
		position->entry = entry;
		position->offset = 0;
		entry->readers++;
		n += board_read_entry(position, buffer + n, size - n);
		if (position->entry != NULL)
			return n;
	}
	position->number = board->newest;
	return n;
}

void
streamext_board_leave(BoardPosition *position)
{
	BoardEntry *entry = position->entry;

	position->entry = NULL;
	if (entry != NULL && --entry->readers == 0 && entry->replaced)
		pfree(entry);
}
