/*
 * source/feed/intake.c
 *		From a feed's records to the stream's journal (source/feed/intake.h). Within libcurl's callbacks: nothing here raises but _new and _load.
 */
#include "base/streamext.h"

#include "common/hashfn.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/json.h"
#include "source/feed/intake.h"
#include "source/feed/repeats.h"

#define INTAKE_ID_MAX FEED_CUT_NAME_MAX
#define INTAKE_READ 64
#define INTAKE_NONE (-1)

/* What is wanted of a record, as numbers of the parser's. */
typedef enum IntakeWant
{
	INTAKE_RESUME,
	INTAKE_DEDUPE,
	INTAKE_SKIP,
	INTAKE_ERROR,
	INTAKE_WANTS
} IntakeWant;

/* A record collected; offsets, since the bytes move as they grow. */
typedef struct IntakeItem
{
	size_t		payload, topic;
	uint32		payload_size, topic_size;
	TimestampTz timestamp;
} IntakeItem;

struct FeedIntake
{
	const FeedOptions *options;
	uint16			   origin;
	JsonParser		  *json; /* NULL: nothing of a record is looked at */
	int				   want[INTAKE_WANTS];
	bool			   whole; /* repeats are known by the whole record */
	JsonValue		   values[INTAKE_WANTS];
	FeedRepeats		  *repeats;
	FeedText		   token;
	char			   trouble[STREAMEXT_MAX_MESSAGE];
	uint64			   count;
	TimestampTz		   now;

	FeedText	   bytes;
	IntakeItem	  *items;
	JournalRecord *records;
	int			   n, capacity;
};

/* ---- begin and end ---- */

static void
intake_want(FeedIntake *intake, IntakeWant what, const char *path)
{
	intake->want[what] = INTAKE_NONE;
	if (path == NULL)
		return;
	if (intake->json == NULL)
		intake->json = streamext_json_create(STREAMEXT_MAX_DEPTH, false);
	if (intake->json != NULL)
		intake->want[what] = streamext_json_want(intake->json, NULL, path, JSON_WANT_TEXT);
	if (intake->want[what] < 0)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

/* Of what tokens mean something for: never 0, which is of records of nobody. */
static uint16
intake_origin(const FeedOptions *options)
{
	char  *text = psprintf("%s %d %s", options->url, (int) options->resume,
						   options->resume_path != NULL ? options->resume_path : "");
	uint32 hash = hash_bytes((const unsigned char *) text, strlen(text));

	pfree(text);
	return (uint16) (hash % PG_UINT16_MAX + 1);
}

FeedIntake *
streamext_feed_intake_new(const FeedOptions *options)
{
	FeedIntake *intake = palloc0(sizeof(FeedIntake));
	uint64		seed;

	intake->options = options;
	intake->origin = intake_origin(options);
	intake->whole = options->dedupe_path != NULL && strcmp(options->dedupe_path, "$") == 0;
	intake_want(intake, INTAKE_RESUME, options->resume_path);
	intake_want(intake, INTAKE_DEDUPE, intake->whole ? NULL : options->dedupe_path);
	intake_want(intake, INTAKE_SKIP, options->skip_path);
	intake_want(intake, INTAKE_ERROR, options->error_path);
	if (options->dedupe_path == NULL)
		return intake;
	if (!pg_strong_random(&seed, sizeof(seed)))
		seed = (uint64) GetCurrentTimestamp();
	intake->repeats = streamext_feed_repeats_new(seed);
	if (intake->repeats == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return intake;
}

void
streamext_feed_intake_free(FeedIntake *intake)
{
	if (intake->json != NULL)
		streamext_json_destroy(intake->json);
	streamext_feed_repeats_free(intake->repeats);
	streamext_feed_text_free(&intake->token);
	streamext_feed_text_free(&intake->bytes);
	free(intake->items);
	free(intake->records);
}

/* ---- what a record says ---- */

/* Its wanted value as text, or NULL. Good until the next record. */
static const char *
intake_value(const FeedIntake *intake, IntakeWant what, size_t *size)
{
	const JsonValue *value;

	*size = 0;
	if (intake->want[what] == INTAKE_NONE)
		return NULL;
	value = &intake->values[intake->want[what]];
	if (value->kind != JSON_STRING && value->kind != JSON_TEXT)
		return NULL;
	*size = value->size;
	return value->u.s;
}

/* A record that is not JSON has no values; the decoder tells of it. */
static void
intake_look(FeedIntake *intake, const FeedRecord *record)
{
	if (intake->json == NULL || streamext_json_parse(intake->json, record->data, record->size, intake->values) == NULL)
		return;
	for (int i = 0; i < INTAKE_WANTS; i++)
		intake->values[i].kind = JSON_MISSING;
}

/* Whether the JSON object has a single member. */
static bool
intake_is_single(const char *data, size_t size)
{
	int	 depth = 0;
	bool string = false;

	for (size_t i = 0; i < size; i++)
	{
		char c = data[i];

		if (string && c == '\\')
			i++;
		else if (c == '"')
			string = !string;
		else if (!string && (c == '{' || c == '['))
			depth++;
		else if (!string && (c == '}' || c == ']'))
			depth--;
		else if (!string && c == ',' && depth == 1)
			return false;
	}
	return true;
}

/*
 * A server may also tell of errors beside a record's data. What counts is that there is no record: nothing else is in it, or nothing where
 * records of this feed have their identity.
 */
static bool
intake_is_error(FeedIntake *intake, const FeedRecord *record)
{
	size_t size;

	if (intake_value(intake, INTAKE_ERROR, &size) == NULL)
		return false;
	if (intake_is_single(record->data, record->size))
		return true;
	for (IntakeWant what = INTAKE_RESUME; what <= INTAKE_DEDUPE; what++)
		if (intake->want[what] != INTAKE_NONE && intake_value(intake, what, &size) == NULL)
			return true;
	return false;
}

static bool
intake_is_listed(const char *list, const char *name, size_t size)
{
	for (;;)
	{
		Size part;

		list += strspn(list, " ");
		part = strcspn(list, ",");
		while (part > 0 && list[part - 1] == ' ')
			part--;
		if (part == size && memcmp(list, name, size) == 0)
			return true;
		list = strchr(list, ',');
		if (list == NULL)
			return false;
		list++;
	}
}

/* Left out by the options skip_path and events; an event without a name is a "message". */
static bool
intake_is_skipped(FeedIntake *intake, const FeedRecord *record)
{
	const FeedOptions *options = intake->options;
	size_t			   size;
	const char		  *value = intake_value(intake, INTAKE_SKIP, &size);

	if (value != NULL && (options->skip_value == NULL ||
						  (size == strlen(options->skip_value) && memcmp(value, options->skip_value, size) == 0)))
		return true;
	if (options->events == NULL)
		return false;
	if (record->event_size == 0)
		return !intake_is_listed(options->events, "message", strlen("message"));
	return !intake_is_listed(options->events, record->event, record->event_size);
}

static bool
intake_is_repeated(FeedIntake *intake, const FeedRecord *record)
{
	size_t		size;
	const char *value;

	if (intake->repeats == NULL)
		return false;
	if (intake->whole)
		return streamext_feed_repeats_seen(intake->repeats, record->data, record->size);
	value = intake_value(intake, INTAKE_DEDUPE, &size);
	return value != NULL && streamext_feed_repeats_seen(intake->repeats, value, size);
}

/* Where the feed could be resumed behind the record, which was looked at; NULL: it does not say. */
static const char *
intake_token_of(const FeedIntake *intake, const FeedRecord *record, size_t *size)
{
	const char *token = record->id;

	*size = record->id_size;
	if (intake->options->resume == FEED_RESUME_QUERY && intake->options->resume_path != NULL)
		token = intake_value(intake, INTAKE_RESUME, size);
	if (*size == 0 || *size > INTAKE_ID_MAX || intake->options->resume == FEED_RESUME_NONE)
		return NULL;
	return token;
}

static bool
intake_move_token(FeedIntake *intake, const char *token, size_t size)
{
	if (token == NULL)
		return true;
	intake->token.size = 0;
	return streamext_feed_text_add(&intake->token, token, size, INTAKE_ID_MAX);
}

static bool
intake_follow(FeedIntake *intake, const FeedRecord *record)
{
	size_t		size;
	const char *token = intake_token_of(intake, record, &size);

	return intake_move_token(intake, token, size);
}

/* What metadata 'id' shows: the server's id, else what tells the record from others; of server-sent events, which may be resumed by it, nothing else. */
static const char *
intake_id(const FeedIntake *intake, const FeedRecord *record, size_t *size)
{
	const char *id = record->id_size > 0 ? record->id : NULL;

	*size = record->id_size;
	if (id == NULL && intake->options->framing != FEED_SSE)
		id = intake_value(intake, INTAKE_DEDUPE, size);
	if (id == NULL && intake->options->framing != FEED_SSE)
		id = intake_value(intake, INTAKE_RESUME, size);
	if (id == NULL || *size > INTAKE_ID_MAX)
		*size = 0;
	return id;
}

/* ---- collected ---- */

static bool
intake_grow(FeedIntake *intake)
{
	int			   capacity = Max(intake->capacity * 2, 1024);
	IntakeItem	  *items = realloc(intake->items, sizeof(IntakeItem) * capacity);
	JournalRecord *records;

	if (items == NULL)
		return false;
	intake->items = items;
	records = realloc(intake->records, sizeof(JournalRecord) * capacity);
	if (records == NULL)
		return false;
	intake->records = records;
	intake->capacity = capacity;
	return true;
}

static bool
intake_add(FeedIntake *intake, const char *data, size_t size)
{
	return streamext_feed_text_add(&intake->bytes, data, size, SIZE_MAX);
}

static bool
intake_collect(FeedIntake *intake, const FeedRecord *record)
{
	size_t		before = intake->bytes.size, id_size;
	const char *id = intake_id(intake, record, &id_size);
	IntakeItem *item;

	if (intake->n == intake->capacity && !intake_grow(intake))
		return false;
	item = &intake->items[intake->n];
	item->payload = before;
	item->payload_size = record->size;
	item->topic = before + record->size;
	item->topic_size = 0;
	item->timestamp = intake->now;
	if (!intake_add(intake, record->data, record->size))
		return false;
	if (record->event_size > 0 || id_size > 0)
	{
		if (!intake_add(intake, record->event, record->event_size) || !intake_add(intake, "", 1) ||
			!intake_add(intake, id, id_size))
		{
			intake->bytes.size = before;
			return false;
		}
		item->topic_size = intake->bytes.size - item->topic;
	}
	intake->n++;
	return true;
}

static bool
intake_refuse(FeedIntake *intake, const char *why)
{
	streamext_clip(intake->trouble, why, sizeof(intake->trouble));
	return false;
}

void
streamext_feed_intake_arrival(FeedIntake *intake)
{
	intake->now = GetCurrentTimestamp();
}

bool
streamext_feed_intake_take(FeedIntake *intake, const FeedRecord *record)
{
	bool done;

	if (record->size == 0)
		return intake->want[INTAKE_RESUME] != INTAKE_NONE || intake_follow(intake, record) ||
			   intake_refuse(intake, "out of memory");
	intake_look(intake, record);
	if (intake_is_error(intake, record))
	{
		streamext_clip_format(intake->trouble, sizeof(intake->trouble), "the server says %.*s",
							  (int) Min(record->size, STREAMEXT_MAX_MESSAGE), record->data);
		return false;
	}
	intake->count++;
	done = intake_is_skipped(intake, record) || intake_is_repeated(intake, record) || intake_collect(intake, record);
	return (done && intake_follow(intake, record)) || intake_refuse(intake, "out of memory");
}

const char *
streamext_feed_intake_trouble(FeedIntake *intake)
{
	static char trouble[STREAMEXT_MAX_MESSAGE];

	strlcpy(trouble, intake->trouble, sizeof(trouble));
	intake->trouble[0] = '\0';
	return trouble;
}

size_t
streamext_feed_intake_waiting(const FeedIntake *intake)
{
	return intake->bytes.size + intake->n * (sizeof(IntakeItem) + sizeof(JournalRecord));
}

uint64
streamext_feed_intake_count(const FeedIntake *intake)
{
	return intake->count;
}

bool
streamext_feed_intake_append(FeedIntake *intake, Journal *journal)
{
	if (intake->n == 0)
		return true;
	for (int i = 0; i < intake->n; i++)
	{
		const IntakeItem *item = &intake->items[i];
		JournalRecord	 *record = &intake->records[i];

		memset(record, 0, sizeof(*record));
		record->timestamp = item->timestamp;
		record->packet_id = intake->origin;
		record->topic = intake->bytes.data + item->topic;
		record->topic_size = item->topic_size;
		record->payload = intake->bytes.data + item->payload;
		record->payload_size = item->payload_size;
	}
	if (!streamext_journal_append(journal, intake->records, intake->n))
		return false;
	intake->n = 0;
	intake->bytes.size = 0;
	return true;
}

const FeedText *
streamext_feed_intake_token(const FeedIntake *intake)
{
	return &intake->token;
}

/* ---- after a restart ---- */

/* As it was when it was taken in. */
static FeedRecord
intake_again(const JournalRecord *from)
{
	FeedRecord record = { from->payload, from->payload_size };
	size_t	   event = strlen(from->topic);

	if (event < from->topic_size)
	{
		record.id = from->topic + event + 1;
		record.id_size = from->topic_size - event - 1;
	}
	return record;
}

/* True: the token is the record's. */
static bool
intake_recall(FeedIntake *intake, const JournalRecord *from)
{
	FeedRecord record = intake_again(from);
	size_t	   size;

	if (from->packet_id != intake->origin)
		return false;
	intake_look(intake, &record);
	(void) intake_is_repeated(intake, &record);
	if (!intake_follow(intake, &record))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	return intake_token_of(intake, &record, &size) != NULL;
}

/* A mark of another origin, or of a record that the journal goes beyond, says nothing. */
static void
intake_take_mark(FeedIntake *intake, int64 known, const char *mark, size_t size)
{
	FeedMark head;

	if (size <= FEED_MARK_HEAD)
		return;
	memcpy(&head.position, mark, sizeof(head.position));
	memcpy(&head.origin, mark + sizeof(head.position), sizeof(head.origin));
	if (head.origin == intake->origin && head.position > known &&
		!intake_move_token(intake, mark + FEED_MARK_HEAD, size - FEED_MARK_HEAD))
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
}

void
streamext_feed_intake_load(FeedIntake *intake, Journal *journal, const char *mark, size_t size)
{
	JournalRecord records[INTAKE_READ];
	int64		  known = -1;
	int64		  last = streamext_journal_before(journal, streamext_journal_end(journal));
	int64		  position = last > 0 ? streamext_journal_before(journal, last) : -1;
	bool		  corrupt;
	int			  n;

	if (intake->repeats == NULL && intake->options->resume == FEED_RESUME_NONE)
		return;
	if (position < 0)
		position = last;
	while (position >= 0 && (n = streamext_journal_read(journal, &position, records, INTAKE_READ, &corrupt)) > 0)
		for (int i = 0; i < n; i++)
			if (intake_recall(intake, &records[i]))
				known = records[i].next_position;
	intake_take_mark(intake, known, mark, size);
}

bool
streamext_feed_intake_mark(FeedIntake *intake, const StreamRecord *records, int n, FeedText *mark)
{
	if (intake->options->resume == FEED_RESUME_NONE)
		return false;
	for (int i = n - 1; i >= 0; i--)
	{
		const JournalRecord *from = records[i].message;
		FeedRecord			 record = intake_again(from);
		const char			*token;
		size_t				 size;

		if (from->packet_id != intake->origin)
			continue;
		intake_look(intake, &record);
		token = intake_token_of(intake, &record, &size);
		if (token == NULL)
			continue;
		mark->size = 0;
		return streamext_feed_text_add(mark, (const char *) &from->next_position, sizeof(int64), FEED_CUT_NAME_MAX) &&
			   streamext_feed_text_add(mark, (const char *) &intake->origin, sizeof(uint16), FEED_CUT_NAME_MAX) &&
			   streamext_feed_text_add(mark, token, size, FEED_MARK_HEAD + FEED_CUT_NAME_MAX);
	}
	return false;
}
