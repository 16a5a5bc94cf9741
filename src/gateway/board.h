/*
 * gateway/board.h
 *		A view's changes as events, for many who read at paces of their own: the newest event of each key, by number.
 *
 * It is what a feed (shared/feed.h) is to sessions: who has all up to a number lacks those above it, nothing grows for a slow reader, and who
 * lags behind by too much, or has less than the floor, begins anew with a reset. A reader is a position; where it stands within an event that
 * has been replaced meanwhile, the old one stays until it is through. One process; memory of one context.
 */
#ifndef STREAMEXT_BOARD_H
#define STREAMEXT_BOARD_H

#include "base/streamext.h"

typedef struct Board	  Board;
typedef struct BoardEntry BoardEntry;

typedef struct BoardPosition
{
	uint64		incarnation; /* of the numbers */
	uint64		number;		 /* has all up to here */
	uint64		anew;		 /* began anew when this was the newest; 0: it did not */
	bool		reset;		 /* is to be told so first */
	BoardEntry *entry;		 /* within this one, or NULL */
	Size		offset;
} BoardPosition;

extern Board *streamext_board_create(MemoryContext parent);
extern void	  streamext_board_free(Board *board); /* nobody reads it any more */
extern Size	  streamext_board_bytes(const Board *board);

/* A view that begins anew; floor: tokens below are out of reach. */
extern void streamext_board_reset(Board *board, uint64 incarnation, uint64 floor);
/* Numbers rise. */
extern void streamext_board_put(Board *board, bool gone, uint64 number, const char *key, uint32 key_size,
								const char *row, uint32 row_size);
/* What was put since the last time is one look at the view: who has all up to there is not asked to begin anew by it. */
extern void streamext_board_settle(Board *board);

/* Where a reader begins who shows this token (may be NULL). */
extern void streamext_board_begin(const Board *board, BoardPosition *position, const char *token);
/* The next bytes of what the reader lacks, at most so many; 0: it has all. Allocates nothing, raises nothing. */
extern Size streamext_board_read(Board *board, BoardPosition *position, char *buffer, Size size);
/* The reader goes. */
extern void streamext_board_leave(BoardPosition *position);

#endif /* STREAMEXT_BOARD_H */
