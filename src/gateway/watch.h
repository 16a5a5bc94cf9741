/*
 * gateway/watch.h
 *		Views whose changes are told to who has asked a gateway: each is read once for all listeners of the same role.
 *
 * A process of the gateway's (gateway/watcher.c) reads them; it is there while somebody listens. What it finds comes to a board (gateway/board.h) of
 * each view and role, from which each listener takes what it lacks. Where listening ends by itself (the view or the right is gone), `status`
 * says why.
 */
#ifndef STREAMEXT_WATCH_H
#define STREAMEXT_WATCH_H

#include "base/streamext.h"

#include "lib/ilist.h"
#include "storage/proc.h"
#include "storage/spin.h"

#include "gateway/board.h"

#define STREAMEXT_WATCHES 64							  /* views and roles of a gateway at once */
#define STREAMEXT_WATCH_BYTES ((Size) 64 * 1024 * 1024)	  /* of a view's rows */
#define STREAMEXT_BOARDS_BYTES ((Size) 256 * 1024 * 1024) /* of all boards */

/* ---- who listens: gateway/watch.c ---- */

typedef struct Watch
{
	uint32	   id;
	int		   status; /* of HTTP: 0: not known yet; 200: the board is there; else it has ended, error says why */
	char	   error[STREAMEXT_MAX_MESSAGE];
	Oid		   role;
	char	   schema[NAMEDATALEN], name[NAMEDATALEN];
	Board	  *board;
	char	  *keys; /* a JSON array of the names of the key's columns, in ASCII */
	dlist_head listeners;
} Watch;

typedef struct WatchListener
{
	dlist_node	  node;
	Watch		 *watch;
	BoardPosition position; /* the listener's own to begin, when status is 200 */
} WatchListener;

/* False: the role has its share, or no process is to be had; try later. */
extern bool streamext_watch_join(WatchListener *listener, Oid role, const char *schema, const char *name);
extern void streamext_watch_leave(WatchListener *listener);
/* Takes what has come; `wake` is called for each listener of a watch with something new on its board, or another status. */
extern void streamext_watch_poll(void (*wake)(WatchListener *listener));

/* ---- between the processes ---- */

typedef struct WatchPlace
{
	uint32 id; /* 0: none */
	Oid	   role;
	char   schema[NAMEDATALEN], name[NAMEDATALEN];
} WatchPlace;

/* In a dynamic segment, with a queue behind it. */
typedef struct WatchShared
{
	slock_t	   lock;
	Oid		   dboid;
	PGPROC	  *watcher; /* NULL: not yet */
	bool	   left;	/* it has looked at its places for the last time */
	WatchPlace places[STREAMEXT_WATCHES];
} WatchShared;

#define STREAMEXT_WATCH_QUEUE (512 * 1024)
#define STREAMEXT_WATCH_QUEUE_AT BUFFERALIGN(sizeof(WatchShared))

/* What comes through the queue: messages of one or more of these, each with its key and row behind it, at no alignment. */
typedef enum WatchKind
{
	WATCH_RESET,  /* number: the floor; row: a JSON array of the names of the key's columns, in ASCII */
	WATCH_UPSERT, /* number, key, row */
	WATCH_DELETE,
	WATCH_SETTLED, /* the end of a look */
	WATCH_ENDED,   /* number: the status; row: why */
	WATCH_PING	   /* is there anybody? */
} WatchKind;

typedef struct WatchRecord
{
	uint32	  id;
	WatchKind kind;
	uint64	  incarnation, number;
	uint32	  key_size, row_size;
} WatchRecord;

extern PGDLLEXPORT void streamext_watcher_main(Datum arg); /* arg: of the segment */

#endif /* STREAMEXT_WATCH_H */
