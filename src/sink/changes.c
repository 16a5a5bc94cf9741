/*-------------------------------------------------------------------------
 *
 * sink/changes.c
 *		What has changed in a continuous view, told to who has a token of the view's feed (shared/feed.h).
 *
 * Nobody asks: nothing is read, compared or kept. Who is told the same is in sink/changes_reader.c, how the view is read in
 * sink/changes_look.c.
 *
 * A token is <incarnation of the feed>-<number of an entry>.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "base/identity.h"
#include "sink/changes_private.h"

#define CHANGES_TOKEN_SIZE 40 /* 16 digits, a hyphen, 20 digits, and more */

static char *
changes_token(const FeedSlot *feed, uint64 number)
{
	return psprintf("%016llx-%llu", (unsigned long long) feed->incarnation, (unsigned long long) number);
}

/* What the token says its holder has; false: all that can be known is that he has to begin anew. */
static bool
changes_parse_token(const FeedSlot *feed, const char *token, uint64 *number)
{
	unsigned long long incarnation, value;
	int				   length = 0;

	if (token == NULL || sscanf(token, "%16llx-%llu%n", &incarnation, &value, &length) != 2 || token[length] != '\0' ||
		incarnation != feed->incarnation || value < feed->floor || value > feed->number)
		return false;
	*number = value;
	return true;
}

/* The next entry that is of interest: who begins anew has no use for what is gone. */
static FeedEntry *
changes_next(FeedCursor *cursor, bool anew)
{
	FeedEntry *entry = streamext_feed_next(cursor);

	while (entry != NULL && anew && entry->gone)
		entry = streamext_feed_next(cursor);
	return entry;
}

/* Who is told. */
typedef struct ChangesListener
{
	FeedSlot   *feed;
	ChangesEmit emit;
	void	   *arg;
	char		token[CHANGES_TOKEN_SIZE];
	int			incarnation_size; /* of the token, with the hyphen */
} ChangesListener;

static void
changes_emit(ChangesListener *listener, Change *change, uint64 number)
{
	int size = listener->incarnation_size;

	size += pg_ulltoa_n(number, listener->token + size);
	listener->token[size] = '\0';
	change->incarnation = listener->feed->incarnation;
	change->number = number;
	change->token = listener->token;
	listener->emit(listener->arg, change);
}

static void
changes_emit_reset(ChangesListener *listener, uint64 number)
{
	Change change = { .op = STREAMEXT_CHANGE_RESET, .at = listener->feed->looked_at };

	changes_emit(listener, &change, number);
}

static void
changes_emit_entry(ChangesListener *listener, const FeedEntry *entry, uint64 number)
{
	Change change = { .op = entry->gone ? STREAMEXT_CHANGE_DELETE : STREAMEXT_CHANGE_UPSERT,
					  .at = entry->at,
					  .key = entry->data,
					  .row = entry->data + entry->key_size,
					  .key_size = entry->key_size,
					  .row_size = entry->row_size };

	changes_emit(listener, &change, number);
}

/*
 * The last one's token is of all there is. While one begins anew, earlier ones' may be out of reach, for who has no more than these; he
 * would begin anew once more.
 */
static uint64
changes_tell(FeedSlot *feed, const ChangesQuestion *question, ChangesEmit emit, void *arg)
{
	ChangesListener listener = { .feed = feed, .emit = emit, .arg = arg };
	uint64			number = 0;
	uint64			told = 0;
	bool			anew = !changes_parse_token(feed, question->after, &number);
	bool			skip = anew && !question->gone;
	FeedCursor		cursor = streamext_feed_after(feed, number);
	FeedEntry	   *entry = changes_next(&cursor, skip);

	listener.incarnation_size =
		snprintf(listener.token, sizeof(listener.token), "%016llx-", (unsigned long long) feed->incarnation);
	if (anew && question->gone)
		changes_emit_reset(&listener, feed->floor);
	else if (anew)
		changes_emit_reset(&listener, entry != NULL ? entry->number - 1 : feed->number);
	while (entry != NULL)
	{
		FeedEntry *next = changes_next(&cursor, skip);

		changes_emit_entry(&listener, entry, next != NULL ? entry->number : feed->number);
		told++;
		entry = next;
	}
	return told;
}

uint64
streamext_changes_read(ChangesReader *reader, const ChangesQuestion *question, ChangesEmit emit, void *arg,
					   char **newest)
{
	FeedSlot *feed;
	uint64	  told;

	streamext_identity_check_columns(reader->view);
	feed = streamext_feed_open(&reader->identity);
	if (reader->grouped && !feed->grouped)
		streamext_feed_reset(feed); /* the view was another one, whose rows were of no groups */
	if (feed->incarnation == 0 ||
		(feed->looked_at < question->fresh && !(question->idle && reader->steady && feed->version != 0 &&
												feed->version == streamext_changes_version(reader))))
		streamext_changes_look(reader, feed);
	reader->looked_at = feed->looked_at;
	told = changes_tell(feed, question, emit, arg);
	if (newest != NULL)
		*newest = changes_token(feed, feed->number);
	streamext_feed_close(feed);
	return told;
}
