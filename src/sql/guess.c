/*
 * sql/guess.c
 *		Which columns a stream should have, guessed from a sample of its records.
 *
 * Each member that JSON objects have becomes a column of the narrowest type that holds all its values; members of objects in them too, by
 * their paths, down to GUESS_DEPTH. What differs in kind from record to record is jsonb, or text where it is scalars. Numbers are times
 * only where the name says so too and they would be of this century.
 *
 * The payloads are anybody's bytes: they are parsed by base/json.h first, which bounds their depth, and then by PostgreSQL's own parser for
 * the members in their order.
 */
#include "base/streamext.h"

#include <ctype.h>

#include "catalog/pg_type.h"
#include "common/jsonapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"

#include "base/json.h"
#include "base/path.h"
#include "decode/format.h"
#include "sql/guess.h"

#define GUESS_DEPTH 3	  /* members of members of the payload */
#define GUESS_COLUMNS 200 /* more are left out */

/* What a member's values have been. */
#define SEEN_NULL 0x01
#define SEEN_BOOL 0x02
#define SEEN_INT 0x04
#define SEEN_NUMERIC 0x08 /* whole, beyond bigint */
#define SEEN_FLOAT 0x10
#define SEEN_TIME 0x20 /* a text as 2024-05-01T12:00:00Z */
#define SEEN_DATE 0x40
#define SEEN_TEXT 0x80
#define SEEN_NESTED 0x100 /* an array or an object that is not taken apart */
#define SEEN_OBJECT 0x200 /* one whose members are looked at */
#define SEEN_NUMBER (SEEN_INT | SEEN_NUMERIC | SEEN_FLOAT)

typedef struct GuessedField
{
	int	   depth;
	char  *keys[GUESS_DEPTH];
	int	   seen;
	int	   present; /* records in which it is not null */
	double least, most;
	int	   now; /* seen in the record that is being read, 0: nothing; */
	double number;
} GuessedField;

typedef struct Guesser
{
	List *fields; /* of GuessedField * */
	int	  depth;  /* of the member that is being read; */
	char *keys[GUESS_DEPTH];
	int	  opaque; /* arrays, and objects too deep, that it is in */
} Guesser;

/* ---- what is there ---- */

static GuessedField *
guess_field(Guesser *g)
{
	GuessedField *field;
	ListCell	 *cell;

	foreach (cell, g->fields)
	{
		bool same;

		field = lfirst(cell);
		same = field->depth == g->depth;
		for (int i = 0; same && i < g->depth; i++)
			same = strcmp(field->keys[i], g->keys[i]) == 0;
		if (same)
			return field;
	}
	if (list_length(g->fields) >= GUESS_COLUMNS)
		return NULL;
	field = palloc0(sizeof(GuessedField));
	field->depth = g->depth;
	memcpy(field->keys, g->keys, sizeof(field->keys));
	g->fields = lappend(g->fields, field);
	return field;
}

static void
guess_note(Guesser *g, int seen, double number)
{
	GuessedField *field = g->depth > 0 ? guess_field(g) : NULL;

	if (field == NULL)
		return;
	field->now = seen;
	field->number = number;
}

/* The member that begins takes the place of one of its name in the same object, with all that is in there. */
static void
guess_forget(Guesser *g)
{
	ListCell *cell;

	foreach (cell, g->fields)
	{
		GuessedField *field = lfirst(cell);
		bool		  within = field->now != 0 && field->depth >= g->depth;

		for (int i = 0; within && i < g->depth; i++)
			within = strcmp(field->keys[i], g->keys[i]) == 0;
		if (within)
			field->now = 0;
	}
}

/* The record has been read: what it has shown counts. */
static void
guess_count(Guesser *g)
{
	ListCell *cell;

	foreach (cell, g->fields)
	{
		GuessedField *field = lfirst(cell);

		if (field->now & SEEN_NUMBER)
		{
			field->least = (field->seen & SEEN_NUMBER) ? Min(field->least, field->number) : field->number;
			field->most = (field->seen & SEEN_NUMBER) ? Max(field->most, field->number) : field->number;
		}
		field->seen |= field->now;
		field->present += field->now != 0 && field->now != SEEN_NULL;
		field->now = 0;
	}
}

/* Those that have counted in some record. */
static List *
guess_counted(const Guesser *g)
{
	List	 *counted = NIL;
	ListCell *cell;

	foreach (cell, g->fields)
		if (((GuessedField *) lfirst(cell))->seen != 0)
			counted = lappend(counted, lfirst(cell));
	return counted;
}

/* Whether the text is as the pattern, in which 0 stands for a digit. */
static bool
guess_is_like(const char *text, const char *pattern)
{
	for (; *pattern != '\0'; text++, pattern++)
		if (*pattern == '0' ? *text < '0' || *text > '9' : *text != *pattern)
			return false;
	return true;
}

static int
guess_text(const char *text)
{
	if (!guess_is_like(text, "0000-00-00") || strcmp(text + 5, "13") >= 0 || strcmp(text + 8, "32") >= 0)
		return SEEN_TEXT;
	if (text[10] == '\0')
		return SEEN_DATE;
	return (text[10] == 'T' || text[10] == ' ') && guess_is_like(text + 11, "00:00") &&
				   strspn(text + 16, "0123456789:.,+-Zz ") == strlen(text + 16)
			   ? SEEN_TIME
			   : SEEN_TEXT;
}

static int
guess_number(const char *text)
{
	char *end;

	if (strpbrk(text, ".eE") != NULL)
		return SEEN_FLOAT;
	errno = 0;
	(void) strtoll(text, &end, 10);
	return errno == 0 ? SEEN_INT : SEEN_NUMERIC;
}

/* ---- the parser's actions ---- */

#if PG_VERSION_NUM >= 160000
#define GUESS_ACTION static JsonParseErrorType
#define GUESS_DONE return JSON_SUCCESS
#else
#define GUESS_ACTION static void
#define GUESS_DONE return
#endif

GUESS_ACTION
guess_object_start(void *state)
{
	Guesser *g = state;

	if (g->opaque > 0 || g->depth >= GUESS_DEPTH)
	{
		if (g->opaque++ == 0)
			guess_note(g, SEEN_NESTED, 0);
	}
	else
		guess_note(g, SEEN_OBJECT, 0);
	GUESS_DONE;
}

GUESS_ACTION
guess_array_start(void *state)
{
	Guesser *g = state;

	if (g->opaque++ == 0)
		guess_note(g, SEEN_NESTED, 0);
	GUESS_DONE;
}

GUESS_ACTION
guess_end(void *state)
{
	Guesser *g = state;

	if (g->opaque > 0)
		g->opaque--;
	GUESS_DONE;
}

GUESS_ACTION
guess_member_start(void *state, char *name, bool isnull)
{
	Guesser *g = state;

	if (g->opaque == 0)
	{
		g->keys[g->depth++] = name;
		guess_forget(g);
	}
	GUESS_DONE;
}

GUESS_ACTION
guess_member_end(void *state, char *name, bool isnull)
{
	Guesser *g = state;

	if (g->opaque == 0)
		g->depth--;
	GUESS_DONE;
}

GUESS_ACTION
guess_scalar(void *state, char *token, JsonTokenType type)
{
	Guesser *g = state;

	if (g->opaque > 0)
		GUESS_DONE;
	switch (type)
	{
		case JSON_TOKEN_STRING:
			guess_note(g, guess_text(token), 0);
			break;
		case JSON_TOKEN_NUMBER:
			guess_note(g, guess_number(token), strtod(token, NULL));
			break;
		case JSON_TOKEN_TRUE:
		case JSON_TOKEN_FALSE:
			guess_note(g, SEEN_BOOL, 0);
			break;
		default:
			guess_note(g, SEEN_NULL, 0);
			break;
	}
	GUESS_DONE;
}

static void
guess_members(Guesser *g, const StreamRecord *record)
{
	JsonSemAction	actions = { 0 };
	JsonLexContext *lex;

	actions.semstate = g;
	actions.object_start = guess_object_start;
	actions.object_end = guess_end;
	actions.array_start = guess_array_start;
	actions.array_end = guess_end;
	actions.object_field_start = guess_member_start;
	actions.object_field_end = guess_member_end;
	actions.scalar = guess_scalar;
	g->depth = g->opaque = 0;
#if PG_VERSION_NUM >= 170000
	lex = makeJsonLexContextCstringLen(NULL, unconstify(char *, record->payload), record->payload_size, PG_UTF8, true);
#else
	lex = makeJsonLexContextCstringLen(unconstify(char *, record->payload), record->payload_size, PG_UTF8, true);
#endif
	/* what is no object has been left out; a text that PostgreSQL cannot hold ends the record's part here */
	(void) pg_parse_json(lex, &actions);
	guess_count(g);
}

/* ---- columns ---- */

/* Whether the last key says that it is a time: created_at, sentAt, ts, eventTime. */
static bool
guess_names_time(const char *key)
{
	static const char *const names[] = { "ts", "t", "time", "timestamp", "epoch", "date", "datetime", "at", "when" };
	static const char *const ends[] = { "_ts",	"Ts",		 "_at",		  "At",	   "time",
										"Time", "timestamp", "Timestamp", "epoch", "_date" };
	size_t					 size = strlen(key);

	for (int i = 0; i < lengthof(names); i++)
		if (pg_strcasecmp(key, names[i]) == 0)
			return true;
	for (int i = 0; i < lengthof(ends); i++)
		if (size > strlen(ends[i]) && strcmp(key + size - strlen(ends[i]), ends[i]) == 0)
			return true;
	return false;
}

/* What numbers count that lie between the years 2001 and 2100 then; NULL: they do not. */
static const char *
guess_unix(const GuessedField *field)
{
	static const char *const units[] = { "unix", "unix_ms", "unix_us", "unix_ns" };
	double					 unit = 1;

	for (int i = 0; i < lengthof(units); i++, unit *= 1000)
		if (field->least >= 978307200 * unit && field->most < 4102444800.0 * unit)
			return units[i];
	return NULL;
}

static void
guess_type(const GuessedField *field, GuessedColumn *column)
{
	int seen = field->seen & ~SEEN_NULL;

	if (seen & (SEEN_NESTED | SEEN_OBJECT))
		column->type = JSONBOID;
	else if (seen == SEEN_BOOL)
		column->type = BOOLOID;
	else if (seen == SEEN_DATE)
		column->type = DATEOID;
	else if (seen != 0 && (seen & ~(SEEN_TIME | SEEN_DATE)) == 0)
		column->type = TIMESTAMPTZOID;
	else if (seen == 0 || (seen & ~SEEN_NUMBER) != 0)
		column->type = TEXTOID;
	else if (guess_names_time(field->keys[field->depth - 1]) && (column->time_format = guess_unix(field)) != NULL)
		column->type = TIMESTAMPTZOID;
	else if (seen & SEEN_FLOAT)
		column->type = FLOAT8OID;
	else
		column->type = seen & SEEN_NUMERIC ? NUMERICOID : INT8OID;
}

static bool
guess_is_taken(List *columns, const char *name)
{
	static const char *const system[] = { "tableoid", "cmax", "xmax", "cmin", "xmin", "ctid" };
	ListCell				*cell;

	for (int i = 0; i < lengthof(system); i++)
		if (strcmp(name, system[i]) == 0)
			return true;
	foreach (cell, columns)
		if (strcmp(((GuessedColumn *) lfirst(cell))->name, name) == 0)
			return true;
	return false;
}

/* Keys in lower case, joined by "_", as an identifier that needs no quotes where it can be. */
static char *
guess_name(const GuessedField *field, List *columns)
{
	StringInfoData name;
	char		   plain[NAMEDATALEN];

	initStringInfo(&name);
	for (int i = 0; i < field->depth; i++)
	{
		if (i > 0)
			appendStringInfoChar(&name, '_');
		for (const char *p = field->keys[i]; *p != '\0'; p++)
			appendStringInfoChar(
				&name, IS_HIGHBIT_SET(*p) || isalnum((unsigned char) *p) ? pg_ascii_tolower((unsigned char) *p) : '_');
	}
	if (name.len == 0)
		appendStringInfoString(&name, "value");
	strlcpy(plain, name.data, pg_mbcliplen(name.data, name.len, NAMEDATALEN - 4) + 1);
	if (!guess_is_taken(columns, plain))
		return pstrdup(plain);
	for (int n = 2;; n++)
	{
		char *numbered = psprintf("%.*s_%d", pg_mbcliplen(plain, strlen(plain), NAMEDATALEN - 8), plain, n);

		if (!guess_is_taken(columns, numbered))
			return numbered;
	}
}

/* Whether an option's value may hold it as it is. */
static bool
guess_is_plain(const char *key)
{
	for (const char *p = key; *p != '\0'; p++)
		if (*p == '$' || iscntrl((unsigned char) *p))
			return false;
	return true;
}

/* As JSON has it, and what an option's value may not hold escaped too. */
static void
guess_put_quoted(StringInfo path, const char *key)
{
	StringInfoData quoted;

	initStringInfo(&quoted);
	escape_json(&quoted, key);
	for (const char *p = quoted.data; *p != '\0'; p++)
		if (*p == 0x7f)
			appendStringInfoString(path, "\\u007f");
		else
			appendStringInfoChar(path, *p);
}

/* NULL: the column's name is the key. */
static char *
guess_path(const GuessedField *field, const char *name)
{
	StringInfoData path;

	if (field->depth == 1 && strcmp(field->keys[0], name) == 0)
		return NULL;
	initStringInfo(&path);
	for (int i = 0; i < field->depth; i++)
	{
		const char *key = field->keys[i];
		char	   *read = palloc(strlen(key) + 1);
		PathReader	reader;

		appendStringInfoString(&path, i > 0 ? "." : "");
		streamext_path_begin(&reader, key);
		if (guess_is_plain(key) && streamext_path_next(&reader, read) == PATH_KEY && reader.size == strlen(key))
			appendStringInfoString(&path, key);
		else
			guess_put_quoted(&path, key);
	}
	return path.data;
}

/* Below a member that is more than an object: it is one column. */
static bool
guess_is_covered(const GuessedField *field, List *fields)
{
	ListCell *cell;

	foreach (cell, fields)
	{
		const GuessedField *other = lfirst(cell);
		bool				above = other->depth < field->depth && (other->seen & ~(SEEN_NULL | SEEN_OBJECT)) != 0;

		for (int i = 0; above && i < other->depth; i++)
			above = strcmp(other->keys[i], field->keys[i]) == 0;
		if (above)
			return true;
	}
	return false;
}

static bool
guess_covers(const GuessedField *field, List *fields)
{
	ListCell *cell;

	foreach (cell, fields)
	{
		const GuessedField *other = lfirst(cell);
		bool				below = other->depth > field->depth;

		for (int i = 0; below && i < field->depth; i++)
			below = strcmp(other->keys[i], field->keys[i]) == 0;
		if (below)
			return true;
	}
	return false;
}

static void
guess_columns(Guess *guess, List *fields, int records)
{
	ListCell *cell;

	foreach (cell, fields)
	{
		GuessedField  *field = lfirst(cell);
		GuessedColumn *column;
		bool		   covers = guess_covers(field, fields);

		if (guess_is_covered(field, fields) || (covers && (field->seen & ~(SEEN_NULL | SEEN_OBJECT)) == 0))
			continue;
		if (covers)
			field->seen |= SEEN_NESTED;
		column = palloc0(sizeof(GuessedColumn));
		guess_type(field, column);
		column->name = guess_name(field, guess->columns);
		column->path = guess_path(field, column->name);
		column->time = column->type == TIMESTAMPTZOID && field->present >= records;
		guess->columns = lappend(guess->columns, column);
	}
}

/* The column whose name says so, or the only time there is. */
static void
guess_event_time(Guess *guess)
{
	static const char *const names[] = { "ts", "event_time", "eventtime", "timestamp", "time", "datetime",
										 "at", "created_at", "createdat", "date",	   "t" };
	const char				*only = NULL;
	int						 times = 0;
	ListCell				*cell;

	foreach (cell, guess->columns)
	{
		const GuessedColumn *column = lfirst(cell);

		times += column->time;
		if (column->time)
			only = column->name;
	}
	for (int i = 0; i < lengthof(names) && guess->event_time == NULL; i++)
		foreach (cell, guess->columns)
			if (((GuessedColumn *) lfirst(cell))->time && strcmp(((GuessedColumn *) lfirst(cell))->name, names[i]) == 0)
				guess->event_time = names[i];
	if (guess->event_time == NULL && times == 1)
		guess->event_time = only;
}

/* ---- payloads that are no objects ---- */

static void
guess_one_column(Guess *guess, const FormatOps *format, const char *name, Oid type)
{
	GuessedColumn *column = palloc0(sizeof(GuessedColumn));

	column->name = pstrdup(name);
	column->type = type;
	guess->format = format;
	guess->columns = list_make1(column);
}

/* Bare numbers, lines of text, or bytes. */
static void
guess_bare(Guess *guess, const StreamRecord *records, int n)
{
	int numbers = 0, texts = 0;

	for (int i = 0; i < n; i++)
	{
		const char *payload = records[i].payload;
		char	   *end;

		if (payload == NULL || memchr(payload, '\0', records[i].payload_size) != NULL ||
			!pg_verify_mbstr(PG_UTF8, payload, records[i].payload_size, true))
			continue;
		texts++;
		(void) strtod(payload, &end); /* there is a NUL behind it */
		numbers += end > payload && strspn(end, " \t\r\n") == strlen(end);
	}
	if (numbers == guess->records)
		guess_one_column(guess, &streamext_text_format, "value", FLOAT8OID);
	else if (texts == guess->records)
		guess_one_column(guess, &streamext_text_format, "payload", TEXTOID);
	else
		guess_one_column(guess, &streamext_raw_format, "payload", BYTEAOID);
}

/* The members of all that are objects; how many are. */
static int
guess_objects(Guesser *g, JsonParser *parser, const StreamRecord *records, int n)
{
	int objects = 0;

	for (int i = 0; i < n; i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (records[i].payload == NULL || records[i].payload_size > STREAMEXT_MAX_RECORD ||
			streamext_json_parse(parser, records[i].payload, records[i].payload_size, NULL) != NULL)
			continue;
		objects++;
		guess_members(g, &records[i]);
	}
	return objects;
}

Guess *
streamext_guess(const StreamRecord *records, int n)
{
	Guess		*guess = palloc0(sizeof(Guess));
	Guesser		 g = { 0 };
	List		*fields;
	volatile int objects = 0;
	JsonParser	*parser = streamext_json_create(STREAMEXT_MAX_DEPTH, false);

	if (parser == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	PG_TRY();
	{
		objects = guess_objects(&g, parser, records, n);
	}
	PG_FINALLY();
	{
		streamext_json_destroy(parser);
	}
	PG_END_TRY();
	fields = guess_counted(&g);
	for (int i = 0; i < n; i++)
		guess->records += records[i].payload != NULL;
	if (guess->records == 0)
		return NULL;
	if (objects * 2 < guess->records)
		guess_bare(guess, records, n);
	else if (fields == NIL)
	{
		guess_one_column(guess, &streamext_json_format, "payload", JSONBOID);
		((GuessedColumn *) linitial(guess->columns))->path = pstrdup("$");
	}
	else
	{
		guess->format = &streamext_json_format;
		guess->strange = guess->records - objects;
		guess_columns(guess, fields, objects);
		guess_event_time(guess);
	}
	return guess;
}
