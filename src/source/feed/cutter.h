/*
 * source/feed/cutter.h
 *		From a feed's bytes, as the network has them, to its records: one cutter for each framing, pure C.
 *
 * A record that lies whole in the bytes at hand is not copied. Of one that is longer than a record may be FEED_CUT_MAX bytes are
 * delivered, one more than the decoder takes, so that it becomes a dead letter instead of being missed: as soon as they are there, since its
 * end may never come (of server-sent events at the end: what they are called may stand behind the data). Lines without content are keep-alives.
 */
#ifndef STREAMEXT_FEED_CUTTER_H
#define STREAMEXT_FEED_CUTTER_H

#include "base/streamext.h"

#include "source/feed/text.h"

#ifndef FEED_CUT_MAX /* the fuzzer has it smaller */
#define FEED_CUT_MAX (STREAMEXT_MAX_RECORD + 1)
#endif
#define FEED_CUT_NAME_MAX 8192 /* bytes of an SSE id or event name; a longer one is passed over */

/* In the order of the words of option framing. */
typedef enum FeedFraming
{
	FEED_NDJSON,
	FEED_SSE,
	FEED_WEBSOCKET,
	FEED_ARRAY
} FeedFraming;

/* Pointers are good during the call. No event, no id: size 0. Without data it is no record: SSE, where only the id counts. */
typedef struct FeedRecord
{
	const char *data;
	size_t		size;
	const char *event;
	size_t		event_size;
	const char *id;
	size_t		id_size;
} FeedRecord;

/* False: no more, the connection is to end. */
typedef bool (*FeedEmit)(void *context, const FeedRecord *record);

/* What a websocket's peer wants: a PING whose PONG is to carry these bytes, or a CLOSE with them. */
typedef void (*FeedControl)(void *context, int opcode, const char *data, size_t size);

#define FEED_WS_TEXT 1
#define FEED_WS_BINARY 2
#define FEED_WS_CLOSE 8
#define FEED_WS_PING 9
#define FEED_WS_PONG 10
#define FEED_WS_CONTROL_MAX 125

typedef struct FeedCutter
{
	/* set by the user */
	FeedFraming framing;
	FeedEmit	emit;
	FeedControl control; /* websocket */
	void	   *context;

	/* out */
	const char *fault;	  /* why the last call returned false, static text; NULL: emit did */
	int			retry_ms; /* SSE: the server's wish for the time between two connections; -1: none */

	/* within */
	FeedText part; /* of the record or line that has not ended */
	FeedText line; /* SSE: of the line */
	FeedText id, event;
	bool	 told;	   /* of the record at hand FEED_CUT_MAX bytes were delivered: the rest is passed over */
	bool	 carriage; /* SSE: the last byte was CR, a LF belongs to it */
	bool	 begun;	   /* SSE: past the byte order mark; websocket: within a message */
	bool	 has_data; /* SSE */
	int		 state;	   /* array */
	int		 depth;
	bool	 string, escaped;
	char	 header[14]; /* websocket: of the frame at hand */
	int		 header_size;
	uint64	 left; /* websocket: payload of the frame still to come */
	char	 frame_control[FEED_WS_CONTROL_MAX];
	int		 control_size;
} FeedCutter;

/* For the bytes of a new connection; forgets what an earlier one has left. `id` is the SSE id of events before one comes. */
extern void streamext_feed_cut_begin(FeedCutter *cutter, const char *id, size_t id_size);

/* False: the bytes are not of the framing (fault), or emit returned false. The cutter is not to be used then until begin. */
extern bool streamext_feed_cut(FeedCutter *cutter, const char *data, size_t size);

/* The peer has ended in good order: an ndjson line may lack its newline. */
extern bool streamext_feed_cut_end(FeedCutter *cutter);

extern void streamext_feed_cut_free(FeedCutter *cutter);

/* ---- the framings: source/feed/lines.c, sse.c, array.c, frames.c ---- */

extern bool streamext_feed_cut_lines(FeedCutter *cutter, const char *data, size_t size);
extern bool streamext_feed_cut_lines_end(FeedCutter *cutter);
extern bool streamext_feed_cut_sse(FeedCutter *cutter, const char *data, size_t size);
extern bool streamext_feed_cut_array(FeedCutter *cutter, const char *data, size_t size);
extern bool streamext_feed_cut_frames(FeedCutter *cutter, const char *data, size_t size);

/* ---- for them: source/feed/emit.c ---- */

/* Delivers a record. */
extern bool streamext_feed_cut_emit(FeedCutter *cutter, const char *data, size_t size);
/* How a framing delivers the bytes of a record, FEED_CUT_MAX at most. */
typedef bool (*FeedDeliver)(FeedCutter *cutter, const char *data, size_t size);
/* Bytes of the record at hand, which goes on: kept in `part`, delivered when they are as many as may be. */
extern bool streamext_feed_cut_some(FeedCutter *cutter, const char *data, size_t size, FeedDeliver deliver);
/* Its last bytes. */
extern bool streamext_feed_cut_rest(FeedCutter *cutter, const char *data, size_t size, FeedDeliver deliver);
/* Sets fault; false. */
extern bool streamext_feed_cut_fault(FeedCutter *cutter, const char *fault);
/* Adds to a text; false and a fault if memory is out. */
extern bool streamext_feed_cut_keep(FeedCutter *cutter, FeedText *text, const char *data, size_t size, size_t limit);

#endif /* STREAMEXT_FEED_CUTTER_H */
