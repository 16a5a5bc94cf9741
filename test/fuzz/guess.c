/*
 * sources: sql/guess base/json base/json_plain base/json_tree base/path
 *
 * A sample of records, a line each, of which IMPORT FOREIGN SCHEMA makes columns; "-" is a tombstone. The names are identifiers, no two alike, the paths
 * are paths, and find in some record what the column was made for; the event time is one of the columns.
 */
#include "fuzz.h"

#include "catalog/pg_type.h"
#include "common/jsonapi.h"
#include "decode/format.h"
#include "mb/pg_wchar.h"
#include "nodes/pg_list.h"

#include "base/json.h"
#include "sql/guess.h"

#define RECORDS 16
#define COLUMNS 200

/* Of these only the addresses are asked for. */
const FormatOps streamext_json_format, streamext_text_format, streamext_raw_format;

List *
lappend(List *list, void *datum)
{
	if (list == NIL)
	{
		list = palloc0(sizeof(List) + COLUMNS * sizeof(ListCell));
		list->type = T_List;
		list->max_length = COLUMNS;
		list->elements = list->initial_elements;
	}
	REQUIRE(list->length < list->max_length);
	list->elements[list->length++].ptr_value = datum;
	return list;
}

List *
list_make1_impl(NodeTag type, ListCell datum)
{
	return lappend(NIL, datum.ptr_value);
}

bool
pg_verify_mbstr(int encoding, const char *text, int size, bool no_error)
{
	return pg_encoding_verifymbstr(encoding, text, size) == size;
}

/* As PostgreSQL's. */
void
escape_json(StringInfo to, const char *text)
{
	appendStringInfoCharMacro(to, '"');
	for (; *text != '\0'; text++)
		if (*text == '"' || *text == '\\')
			appendStringInfo(to, "\\%c", *text);
		else if ((unsigned char) *text < ' ')
			appendStringInfo(to, "\\u%04x", (int) *text);
		else
			appendStringInfoCharMacro(to, *text);
	appendStringInfoCharMacro(to, '"');
}

static int
guess_read(FuzzInput *in, StreamRecord *records)
{
	int n = 0;

	while (in->size > 0 && n < RECORDS)
	{
		const uint8_t *end = memchr(in->data, '\n', in->size);
		size_t		   size = end != NULL ? end - in->data : in->size;
		char		  *payload = palloc(size + 1);

		fuzz_bytes(in, payload, size);
		payload[size] = '\0'; /* as streamext_newest has them */
		if (end != NULL)
			fuzz_number(in, 2);
		memset(&records[n], 0, sizeof(StreamRecord));
		records[n].payload = size == 1 && payload[0] == '-' ? NULL : payload;
		records[n++].payload_size = size;
	}
	return n;
}

static void
guess_check_names(const Guess *guess)
{
	bool timed = guess->event_time == NULL;

	for (int i = 0; i < list_length(guess->columns); i++)
	{
		const GuessedColumn *column = list_nth(guess->columns, i);
		int					 size = strlen(column->name);

		REQUIRE(size > 0 && size < NAMEDATALEN && pg_encoding_verifymbstr(PG_UTF8, column->name, size) == size);
		REQUIRE(OidIsValid(column->type) && (column->time_format == NULL || column->type == TIMESTAMPTZOID));
		timed = timed || (strcmp(guess->event_time, column->name) == 0 && column->time);
		for (int j = 0; j < i; j++)
			REQUIRE(strcmp(((GuessedColumn *) list_nth(guess->columns, j))->name, column->name) != 0);
	}
	REQUIRE(timed);
}

/* Whether PostgreSQL's parser gives the record up: what is behind that has not been looked at, a key for the second time neither. */
static bool
guess_is_cut(const StreamRecord *record)
{
	JsonSemAction actions = { 0 };

	return pg_parse_json(
			   makeJsonLexContextCstringLen(unconstify(char *, record->payload), record->payload_size, PG_UTF8, true),
			   &actions) != JSON_SUCCESS;
}

/* As the stream that is made of it reads them. */
static void
guess_check_paths(const Guess *guess, const StreamRecord *records, int n)
{
	JsonParser *parser = streamext_json_create(STREAMEXT_MAX_DEPTH, false);
	JsonValue	values[COLUMNS];
	bool		found[COLUMNS] = { 0 };
	bool		cut = false;

	for (int i = 0; i < list_length(guess->columns); i++)
	{
		const GuessedColumn *column = list_nth(guess->columns, i);

		REQUIRE(streamext_json_want(parser, column->name, column->path, JSON_WANT_RAW) == i);
	}
	for (int r = 0; r < n; r++)
		if (records[r].payload != NULL &&
			streamext_json_parse(parser, records[r].payload, records[r].payload_size, values) == NULL)
		{
			cut = cut || guess_is_cut(&records[r]);
			for (int i = 0; i < list_length(guess->columns); i++)
				found[i] = found[i] || values[i].kind != JSON_MISSING;
		}
	for (int i = 0; i < list_length(guess->columns); i++)
		REQUIRE(found[i] || cut);
	streamext_json_destroy(parser);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	StreamRecord records[RECORDS];
	FuzzInput	 in = { data, size };
	Guess		*guess;
	int			 n, held = 0;

	server_start();
	n = guess_read(&in, records);
	for (int i = 0; i < n; i++)
		held += records[i].payload != NULL;
	guess = streamext_guess(records, n);
	REQUIRE((guess == NULL) == (held == 0));
	if (guess != NULL)
	{
		REQUIRE(guess->records == held && guess->strange <= held && list_length(guess->columns) > 0);
		guess_check_names(guess);
		if (guess->format == &streamext_json_format)
			guess_check_paths(guess, records, n);
	}
	server_reset();
	return 0;
}
