/*
 * sql/columns.c
 *		streamext.stream_columns: what a stream's columns have found in its payloads, and what to do about those that find nothing.
 *
 * Counts are the workers' (StreamSlot.columns). Hints are made here, when somebody asks: from the newest record that the buffer
 * holds, so that no record costs anything for them.
 */
#include "base/streamext.h"

#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/fmgrprotos.h"

#include "base/clip.h"
#include "base/own_table.h"
#include "base/transaction.h"
#include "decode/format.h"
#include "base/path.h"
#include "decode/value.h"
#include "shared/shmem.h"
#include "sql/catalog.h"
#include "sql/columns.h"
#include "sql/newest.h"
#include "stream/definition.h"

PG_FUNCTION_INFO_V1(streamext_get_stream_columns);

#define COLUMNS_NAMED 10 /* fields that a hint lists */
#define COLUMNS_SHOWN 40 /* bytes of a value in a hint */

/* ---- counts ---- */

void
streamext_columns_sum(const StreamConfig *config, ColumnCounts *counts)
{
	memset(counts, 0, sizeof(ColumnCounts) * Max(config->desc->natts, 1));
	for (int shard = 0; shard < config->workers; shard++)
	{
		int			index = streamext_find_stream(MyDatabaseId, config->relid, shard);
		StreamSlot *slot = index < 0 ? NULL : &streamext_shared->streams[index];

		if (slot == NULL)
			continue;
		streamext_stream_lock_shared(slot);
		for (int i = 0; slot->id.relid == config->relid && i < Min(slot->ncolumns, config->desc->natts); i++)
		{
			counts[i].present += slot->columns[i].present;
			counts[i].missing += slot->columns[i].missing;
			counts[i].null += slot->columns[i].null;
			counts[i].rejected += slot->columns[i].rejected;
		}
		LWLockRelease(slot->lock);
	}
}

/* ---- hints ---- */

/* Whether people may have meant the same: whatever the case, without what is between words. */
static bool
columns_alike(const char *a, Size size, const char *b)
{
	const char *stop = a + size;

	for (;; a++, b++)
	{
		while (a < stop && strchr("_-. ", *a) != NULL)
			a++;
		while (*b != '\0' && strchr("_-. ", *b) != NULL)
			b++;
		if (a == stop || *b == '\0')
			return a == stop && *b == '\0';
		if (pg_ascii_tolower((unsigned char) *a) != pg_ascii_tolower((unsigned char) *b))
			return false;
	}
}

/* A key as a path has it. */
static void
columns_append_key(StringInfo path, const char *key, Size size)
{
	PathReader reader;
	char	  *word = pnstrdup(key, size);
	char	  *read = palloc(size + 1);

	if (path->len > 0)
		appendStringInfoChar(path, '.');
	streamext_path_begin(&reader, word);
	if (streamext_path_next(&reader, read) == PATH_KEY && reader.size == size)
		appendStringInfoString(path, word);
	else
		escape_json(path, word);
}

/* Finds a field like `name` in the object and those in it; its path, or NULL. */
static char *
columns_find(JsonbContainer *object, const char *name, const char *within)
{
	JsonbIterator	  *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue		   v;
	char			  *found = NULL;
	StringInfoData	   path;

	if (!JsonContainerIsObject(object))
		return NULL;
	initStringInfo(&path);
	while (found == NULL && (token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			resetStringInfo(&path);
			appendStringInfoString(&path, within);
			columns_append_key(&path, v.val.string.val, v.val.string.len);
			if (columns_alike(v.val.string.val, v.val.string.len, name))
				found = pstrdup(path.data);
		}
		else if (token == WJB_VALUE && v.type == jbvBinary)
			found = columns_find(v.val.binary.data, name, path.data);
	}
	return found;
}

/* Names of the object's fields, for a message. */
static char *
columns_names(JsonbContainer *object)
{
	JsonbIterator	  *it = JsonbIteratorInit(object);
	JsonbIteratorToken token;
	JsonbValue		   v;
	StringInfoData	   names;
	int				   n = 0;

	initStringInfo(&names);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (token == WJB_KEY && n++ < COLUMNS_NAMED)
			appendStringInfo(&names, "%s\"%.*s\"", n > 1 ? ", " : "", v.val.string.len, v.val.string.val);
	if (n > COLUMNS_NAMED)
		appendStringInfo(&names, " and %d more", n - COLUMNS_NAMED);
	return names.data;
}

typedef struct SampleStep
{
	char  *text;
	Jsonb *sample;
} SampleStep;

/* A StreamextStep: jsonb is stricter than streams are. */
static void
columns_sample_step(void *arg)
{
	SampleStep *step = arg;

	step->sample = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(step->text)));
}

/* Where each record is rejected, for want of an event time say, the buffer is empty. */
static char *
columns_rejected_sample(Oid relid)
{
	MemoryContext cxt = CurrentMemoryContext;
	Oid			  types[] = { OIDOID };
	Datum		  values[] = { ObjectIdGetDatum(relid) };
	char		 *text = NULL;
	IdentityScope own;

	own = streamext_own_begin();
	if (SPI_execute_with_args(
			streamext_own_sql("SELECT streamext.payload_text(payload) FROM streamext_internal.dead_letter "
							  "WHERE stream = $1 AND view = 0 ORDER BY id DESC LIMIT 1"),
			1, types, values, NULL, true, 1) == SPI_OK_SELECT &&
		SPI_processed > 0)
		text = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (text != NULL)
		text = MemoryContextStrdup(cxt, text);
	streamext_own_end(own);
	return text;
}

/* The newest record that was accepted; NULL: the buffer is empty. */
static const StreamRecord *
columns_newest(const StreamConfig *config)
{
	for (int shard = 0; shard < config->workers; shard++)
	{
		StreamRecord *records;
		int			  n = streamext_newest_copy(config->relid, shard, &records);

		if (n > 0)
			return &records[n - 1];
	}
	return NULL;
}

/* The newest record that is an object; NULL: there is none. */
static Jsonb *
columns_sample(const StreamConfig *config)
{
	const StreamRecord *newest = columns_newest(config);
	SampleStep			step = { NULL, NULL };

	if (newest != NULL)
		step.text = pnstrdup(newest->payload, newest->payload_size);
	else
		step.text = columns_rejected_sample(config->relid);
	if (step.text == NULL || streamext_try(columns_sample_step, &step) != NULL || !JB_ROOT_IS_OBJECT(step.sample))
		return NULL;
	return step.sample;
}

/* The last key of a path, or the column's name. */
static const char *
columns_key(const StreamColumn *column)
{
	PathReader reader;
	char	  *key;
	char	  *last = NULL;

	if (column->path == NULL)
		return column->name;
	key = palloc(strlen(column->path) + 1);
	streamext_path_begin(&reader, column->path);
	for (PathStep step = streamext_path_next(&reader, key); step < PATH_END; step = streamext_path_next(&reader, key))
		if (step == PATH_KEY)
			last = pnstrdup(key, reader.size);
	return last != NULL ? last : column->name;
}

static char *
columns_text(const JsonbValue *value)
{
	return value == NULL || value->type != jbvString ? NULL : pnstrdup(value->val.string.val, value->val.string.len);
}

/* The text that a column of the newest record has; NULL: none. */
static char *
columns_sample_text(const StreamConfig *config, const StreamColumn *column)
{
	const StreamRecord *newest;
	Jsonb			   *sample;
	JsonbContainer	   *object;
	JsonbValue		   *value = NULL;
	PathReader			reader;
	char			   *key;

	if (config->format->text_of != NULL)
	{
		newest = columns_newest(config);
		return newest == NULL ? NULL : config->format->text_of(config, column, newest);
	}
	sample = columns_sample(config);
	object = sample == NULL ? NULL : &sample->root;
	if (object != NULL && column->path == NULL)
		value = getKeyJsonValueFromContainer(object, column->name, strlen(column->name), NULL);
	if (object == NULL || column->path == NULL)
		return columns_text(value);
	key = palloc(strlen(column->path) + 1);
	streamext_path_begin(&reader, column->path);
	while (object != NULL && streamext_path_next(&reader, key) == PATH_KEY && JsonContainerIsObject(object))
	{
		value = getKeyJsonValueFromContainer(object, key, reader.size, NULL);
		object = value != NULL && value->type == jbvBinary ? value->val.binary.data : NULL;
	}
	return columns_text(value);
}

/* 01.05.2024: whether the first of May or the fifth of January is meant is for who knows the source, not for the stream. */
static char *
columns_date_hint(const StreamConfig *config, const StreamColumn *column)
{
	char *text;
	char  shown[COLUMNS_SHOWN];
	Size  day, month;

	if (!streamext_value_is_time(column->type) || column->time_format_given || config->datestyle != NULL ||
		(!config->format->names_fields && config->format->text_of == NULL))
		return NULL;
	text = columns_sample_text(config, column);
	day = text == NULL ? 0 : strspn(text, "0123456789");
	if (day == 0 || day > 2 || strchr("./-", text[day]) == NULL || text[day] == '\0')
		return NULL;
	month = strspn(text + day + 1, "0123456789");
	if (month == 0 || month > 2 || text[day + 1 + month] != text[day])
		return NULL;
	streamext_clip(shown, text, sizeof(shown));
	return psprintf(
		"times like \"%s\" are read with the month first: say so by the stream's option datestyle 'ISO, MDY', "
		"or write 'ISO, DMY', or the column's option time_format",
		shown);
}

char *
streamext_column_hint(const StreamConfig *config, const StreamColumn *column, const ColumnCounts *counts)
{
	Jsonb *sample;
	char  *path;

	if (column->metadata != METADATA_NONE)
		return NULL;
	if (counts->present > 0)
		return columns_date_hint(config, column);
	if (counts->rejected > 0 && streamext_value_is_time(column->type) && !column->time_format_given)
		return "no value is a time as it stands: the column's option time_format says how times are written";
	if (counts->rejected > 0)
		return "no value fits the column's type: streamext.dead_letters says why, or the option on_bad_value hides it";
	if (counts->missing == 0 || !config->format->names_fields)
		return NULL;
	sample = columns_sample(config);
	if (sample == NULL)
		return NULL;
	path = columns_find(&sample->root, columns_key(column), "");
	if (path == NULL)
		return psprintf("no payload has the field; the newest one has %s%s", columns_names(&sample->root),
						column->type == JSONBOID || column->type == JSONOID ? "; path '$' is the whole of it" : "");
	return psprintf("the payload has \"%s\": write OPTIONS (%spath %s)", path, column->path != NULL ? "SET " : "",
					quote_literal_cstr(path));
}

/* ---- streamext.stream_columns ---- */

static void
columns_put(ReturnSetInfo *rsinfo, const StreamConfig *config, int i, const ColumnCounts *counts)
{
	const StreamColumn *column = &config->columns[i];
	bool				counted = column->metadata == METADATA_NONE && !config->format->rows;
	Datum				values[7] = { 0 };
	bool				nulls[7] = { 0 };

	values[0] = ObjectIdGetDatum(config->relid);
	values[1] = CStringGetTextDatum(column->name);
	values[2] = Int64GetDatum(counts->present);
	values[3] = Int64GetDatum(counts->missing);
	values[4] = Int64GetDatum(counts->null);
	values[5] = Int64GetDatum(counts->rejected);
	nulls[2] = nulls[3] = nulls[4] = nulls[5] = !counted;
	/* names of fields are of the records, which not everybody who may see the stream's figures may read */
	nulls[6] = true;
	if (counted && pg_class_aclcheck(config->relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK)
		streamext_catalog_put_text(values, nulls, 6, streamext_column_hint(config, column, counts));
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

typedef struct ColumnsStep
{
	ReturnSetInfo *rsinfo;
	Oid			   stream;
} ColumnsStep;

/* A StreamextStep. */
static void
columns_stream_step(void *arg)
{
	ColumnsStep	 *step = arg;
	StreamConfig *config = streamext_stream_config(step->stream);
	ColumnCounts *counts;

	if (config == NULL)
		return;
	counts = palloc(sizeof(ColumnCounts) * Max(config->desc->natts, 1));
	streamext_columns_sum(config, counts);
	for (int i = 0; i < config->desc->natts; i++)
		if (!config->columns[i].dropped)
			columns_put(step->rsinfo, config, i, &counts[i]);
}

/* Of a stream that a transaction holds there is nothing to be said. */
static void
columns_put_stream(ReturnSetInfo *rsinfo, Oid relid, const ConnectorOps *connector, List *options)
{
	ColumnsStep step = { rsinfo, relid };

	(void) streamext_catalog_look(columns_stream_step, &step);
}

Datum
streamext_get_stream_columns(PG_FUNCTION_ARGS)
{
	InitMaterializedSRF(fcinfo, 0);
	streamext_catalog_scan_streams((ReturnSetInfo *) fcinfo->resultinfo, columns_put_stream);
	PG_RETURN_VOID();
}
