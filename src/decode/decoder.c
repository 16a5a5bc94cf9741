/*-------------------------------------------------------------------------
 *
 * decode/decoder.c
 *		From records to rows.
 *
 * Three passes over a batch, so that no failure costs more than its record:
 *	1. parse: payload and metadata of each record into the vectors; values of common types directly, the others are noted as text;
 *	2. convert: column by column, the noted texts through the types' input functions inside one subtransaction; after
 *	   an error the offending row is marked and the rest goes on in a new one;
 *	3. check: NOT NULL and event time; marked rows are squeezed out of the vectors.
 *
 * Everything a row holds is in the batch's memory context. A record is accepted if all declared columns can be made from it,
 * whoever needs them, so that what a view counts never depends on which other views exist.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/fmgrprotos.h"
#include "utils/typcache.h"

#include "base/transaction.h"
#include "decode/column.h"
#include "decode/decoder.h"
#include "decode/plain.h"
#include "decode/row.h"
#include "decode/unix_time.h"
#include "decode/value_options.h"

#define DECODER_TIME_OUT_OF_RANGE \
	"the number is out of range for a time; does the column's option time_format say what it counts?"
#define DECODER_SCRATCH (64 * 1024)

static ColumnWay
decoder_column_way(const StreamColumn *column)
{
	if (column->dropped)
		return WAY_NULL;
	if (column->metadata != METADATA_NONE)
		return WAY_METADATA;
	if (streamext_time_format_digits(column->time_format) >= 0)
		return WAY_UNIX;
	switch (column->type)
	{
		case BOOLOID:
			return WAY_BOOL;
		case INT2OID:
		case INT4OID:
		case INT8OID:
			return WAY_INT;
		case FLOAT4OID:
			return WAY_FLOAT4;
		case FLOAT8OID:
			return WAY_FLOAT8;
		case TEXTOID:
			return WAY_TEXT;
		case VARCHAROID:
			return column->typmod < 0 ? WAY_TEXT : WAY_INPUT;
		case TIMESTAMPTZOID:
			return column->typmod < 0 && column->time_pattern == NULL ? WAY_TIMESTAMPTZ : WAY_INPUT;
		default:
			return WAY_INPUT;
	}
}

/* Which columns the format fills, and which come from the record's metadata; dropped ones are neither. */
static void
decoder_sort_columns(Decoder *decoder)
{
	decoder->payload = palloc(sizeof(int) * Max(decoder->natts, 1));
	decoder->metadata = palloc(sizeof(int) * Max(decoder->natts, 1));
	for (int i = 0; i < decoder->natts; i++)
		if (decoder->columns[i].way == WAY_METADATA)
			decoder->metadata[decoder->nmetadata++] = i;
		else if (decoder->columns[i].way != WAY_NULL)
			decoder->payload[decoder->npayload++] = i;
}

/* As the owner. A superuser's stream reads no value whose type runs what an ordinary role has written, as while a dump is restored. */
static void
decoder_check_trust(const StreamConfig *config)
{
	for (int i = 0; i < config->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(config->desc, i);

		if (!attribute->attisdropped && streamext_identity_mistrusts_input(attribute->atttypid))
			ereport(
				ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("stream \"%s\" of a superuser reads no column of a type of another role", config->name),
				 errdetail(
					 "In the type of column \"%s\" is a domain or range of an ordinary role, whose code would run as the superuser.",
					 NameStr(attribute->attname)),
				 errhint(
					 "Give the stream to an ordinary role, ALTER FOREIGN TABLE ... OWNER TO, or the type to the superuser.")));
	}
}

Decoder *
streamext_decoder_create(StreamConfig *config, MemoryContext cxt)
{
	MemoryContext own = AllocSetContextCreate(cxt, "streamext decoder", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	Decoder		 *decoder = palloc0(sizeof(Decoder));
	IdentityScope scope;

	decoder->cxt = own;
	decoder->scratch =
		AllocSetContextCreate(own, "streamext values", DECODER_SCRATCH, DECODER_SCRATCH, DECODER_SCRATCH);
	decoder->config = config;
	decoder->natts = config->desc->natts;
	decoder->columns = palloc0(sizeof(DecoderColumn) * Max(decoder->natts, 1));
	decoder->bad = palloc0(sizeof(bool) * STREAMEXT_BATCH_ROWS);

	/* to look at a domain is to fold the constants of its checks */
	scope = streamext_decoder_enter(decoder);
	decoder_check_trust(config);
	for (int i = 0; i < decoder->natts; i++)
	{
		DecoderColumn *col = &decoder->columns[i];

		col->column = &config->columns[i];
		col->way = decoder_column_way(col->column);
		if (col->way == WAY_NULL)
			continue;
		col->structured =
			config->format->json && col->way == WAY_INPUT && streamext_value_is_structured(col->column->type);
		col->no_number = streamext_value_is_time(col->column->type) && !col->column->time_format_given;
		col->input = streamext_value_input(col->column, col->structured, own);
	}
	decoder_sort_columns(decoder);
	if (config->format->open != NULL)
		decoder->format = config->format->open(decoder);
	streamext_identity_leave(scope);

	MemoryContextSwitchTo(old);
	return decoder;
}

void
streamext_decoder_free(Decoder *decoder)
{
	MemoryContextDelete(decoder->cxt);
}

IdentityScope
streamext_decoder_enter(const Decoder *decoder)
{
	IdentityScope scope = streamext_identity_enter(decoder->config->owner);

	streamext_decoder_settings();
	if (unlikely(decoder->config->datestyle != NULL))
		streamext_identity_set("DateStyle", decoder->config->datestyle);
	return scope;
}

const char *
streamext_decode_note(Decoder *decoder, DecoderColumn *col, int row, const char *s, Size size)
{
	char *copy;

	if (memchr(s, '\0', size) != NULL)
		return "the value holds a NUL character";
	if (col->text == NULL)
		col->text = MemoryContextAllocZero(decoder->cxt, sizeof(char *) * STREAMEXT_BATCH_ROWS);
	copy = decode_alloc(decoder, size + 1);
	memcpy(copy, s, size);
	copy[size] = '\0';
	col->text[row] = copy;
	col->ntext++;
	return NULL;
}

const char *
streamext_decode_bytes(Decoder *decoder, DecoderColumn *col, const char *s, Size size, int row, Datum *value,
					   int *sqlstate)
{
	if (col->way == WAY_UNIX)
		return streamext_decode_unix(col, s, size, value, sqlstate);
	if (col->column->type == BYTEAOID && col->column->encoding == NULL)
	{
		*value = decode_text(decoder, s, size); /* bytea has the same layout */
		return NULL;
	}
	if (pg_encoding_verifymbstr(PG_UTF8, s, size) != size || memchr(s, '\0', size) != NULL)
	{
		*sqlstate = ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
		return "not valid UTF-8, or it holds a NUL character";
	}
	if (col->column->type == TEXTOID || (col->column->type == VARCHAROID && col->column->typmod < 0))
	{
		*value = decode_text(decoder, s, size);
		return NULL;
	}
	return streamext_decode_note(decoder, col, row, s, size);
}

void
streamext_decode_rejected(Decoder *decoder, int i)
{
	decoder->columns[decoder->payload[i]].rejected++;
	decoder->nread++;
	while (++i < decoder->npayload)
		decoder->columns[decoder->payload[i]].unseen++;
}

void
streamext_decoder_count(const Decoder *decoder, int att, ColumnCounts *counts)
{
	const DecoderColumn *col = &decoder->columns[att];

	counts->missing += col->missing;
	counts->null += col->null;
	counts->rejected += col->rejected;
	counts->present += decoder->nread - col->unseen - col->missing - col->null - col->rejected;
}

TimestampTz
streamext_decode_local(TimestampTz shown, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t		 fsec;

	if (timestamp2tm(shown, NULL, &tm, &fsec, NULL, NULL) != 0)
		return shown;
	return shown + DetermineTimeZoneOffset(&tm, zone) * USECS_PER_SEC;
}

/* What clocks of the zone show then. */
static Timestamp
decoder_shown(TimestampTz t, pg_tz *zone)
{
	struct pg_tm tm;
	fsec_t		 fsec;
	int			 west;

	return zone != NULL && timestamp2tm(t, &west, &tm, &fsec, NULL, zone) == 0 ? t - west * USECS_PER_SEC : t;
}

const char *
streamext_decode_unix(const DecoderColumn *col, const char *s, Size size, Datum *value, int *sqlstate)
{
	const StreamColumn *column = col->column;
	int64				t = 0;

	*sqlstate = ERRCODE_DATETIME_VALUE_OUT_OF_RANGE;
	switch (streamext_parse_unix_time(s, size, streamext_time_format_digits(column->time_format), &t))
	{
		case UNIX_TIME_NO_NUMBER:
			*sqlstate = ERRCODE_INVALID_DATETIME_FORMAT;
			return "the value is not a number, as the column's option time_format has it";
		case UNIX_TIME_OUT_OF_RANGE:
			return DECODER_TIME_OUT_OF_RANGE;
		case UNIX_TIME_GOOD:
			break;
	}
	if (column->type != TIMESTAMPTZOID)
		t = decoder_shown(t, column->zone);
	if (!IS_VALID_TIMESTAMP(
			t)) /* the first hours of all time, west of Greenwich: whoever read the view would be told so */
		return DECODER_TIME_OUT_OF_RANGE;
	if (column->type == DATEOID)
		*value = DateADTGetDatum((DateADT) ((t - (t < 0 ? USECS_PER_DAY - 1 : 0)) / USECS_PER_DAY));
	else if (column->typmod < 0)
		*value = Int64GetDatum(t);
	else
		*value = DirectFunctionCall2(timestamp_scale, Int64GetDatum(t), Int32GetDatum(column->typmod));
	return NULL;
}

static const char *
decoder_too_large(const char *what, int *sqlstate)
{
	*sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
	return psprintf("the %s is larger than %d bytes", what, STREAMEXT_MAX_RECORD);
}

static const char *
decoder_metadata(Decoder *decoder, DecoderColumn *col, StreamRecord *record, int row, Datum *value, bool *isnull,
				 int *sqlstate)
{
	const char *s;
	Size		size;

	*isnull = false;
	*value = (Datum) 0;
	switch (col->column->metadata)
	{
		case METADATA_TOPIC:
			return streamext_decode_bytes(decoder, col, record->topic, strlen(record->topic), row, value, sqlstate);
		case METADATA_PARTITION:
			*value = decode_int_datum(col->column->type, record->partition);
			return NULL;
		case METADATA_OFFSET:
			*value = decode_int_datum(col->column->type, record->position);
			return NULL;
		case METADATA_KEY:
			if (record->key != NULL && record->key_size > STREAMEXT_MAX_RECORD)
				return decoder_too_large("key", sqlstate);
			if (record->key != NULL)
				return streamext_decode_bytes(decoder, col, record->key, record->key_size, row, value, sqlstate);
			break;
		case METADATA_TIMESTAMP:
			*value = TimestampTzGetDatum(record->timestamp);
			return NULL;
		case METADATA_HEADERS:
		{
			Connector  *connector = decoder->batch->connector;
			const char *refused = NULL;

			if (decoder->config->format->headers != NULL)
				record->headers = decoder->config->format->headers(decoder, record);
			else if (connector != NULL && record->message != NULL)
				record->headers = streamext_connector_headers(connector->ops, connector, record, &refused, sqlstate);
			if (refused != NULL)
				return refused;
			if (record->headers != NULL)
				return streamext_decode_bytes(decoder, col, record->headers, strlen(record->headers), row, value,
											  sqlstate);
			break;
		}
		case METADATA_QOS:
			*value = decode_int_datum(col->column->type, record->qos);
			return NULL;
		case METADATA_RETAINED:
			*value = BoolGetDatum(record->retained);
			return NULL;
		case METADATA_HEADER:
			if (decoder->config->format->header != NULL &&
				decoder->config->format->header(decoder, record, col->column->metadata_name, &s, &size))
				return streamext_decode_bytes(decoder, col, s, size, row, value, sqlstate);
			break;
		case METADATA_OWN:
			if (decoder->config->connector->own_metadata(record, col->column, &s, &size))
				return streamext_decode_bytes(decoder, col, s, size, row, value, sqlstate);
			break;
		case METADATA_NONE:
			break;
	}
	*isnull = true;
	return NULL;
}

void
streamext_decode_trim(StreamRecord *record)
{
	if (record->payload_size >= 3 && memcmp(record->payload, "\xef\xbb\xbf", 3) == 0)
	{
		record->payload += 3;
		record->payload_size -= 3;
	}
	while (record->payload_size > 0 && strchr("\r\n", record->payload[record->payload_size - 1]) != NULL)
		record->payload_size--; /* strchr finds NUL too */
}

/* What is around the payload and not of it is no part of what the format sees; the record stays as it came. */
static const char *
decoder_parse_trimmed(Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate)
{
	StreamRecord trimmed = *record;

	streamext_decode_trim(&trimmed);
	return decoder->config->format->parse(decoder, &trimmed, row, column, sqlstate);
}

/* Pass 1 for one record into row `row`; NULL or the reason to reject. */
static const char *
decoder_parse_record(Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate)
{
	Batch	   *batch = decoder->batch;
	const char *reason;

	*column = NULL;
	*sqlstate = ERRCODE_INVALID_TEXT_REPRESENTATION;
	if (record->payload == NULL)
	{
		*sqlstate = ERRCODE_NULL_VALUE_NOT_ALLOWED;
		return "the record has no payload (a tombstone)";
	}
	if (record->payload_size > STREAMEXT_MAX_RECORD)
		return decoder_too_large("payload", sqlstate);
	if (unlikely(decoder->config->trims) && decoder->config->format->body == NULL)
		reason = decoder_parse_trimmed(decoder, record, row, column, sqlstate);
	else
		reason = decoder->config->format->parse(decoder, record, row, column, sqlstate);
	if (unlikely(reason != NULL))
		return reason;
	for (int i = 0; i < decoder->nmetadata; i++)
	{
		int			   att = decoder->metadata[i];
		DecoderColumn *col = &decoder->columns[att];

		reason =
			decoder_metadata(decoder, col, record, row, &batch->values[att][row], &batch->nulls[att][row], sqlstate);
		if (unlikely(reason != NULL) &&
			!decode_forgive(col, &batch->values[att][row], &batch->nulls[att][row], sqlstate))
		{
			*column = col->column->name;
			decoder->nread++;
			return reason;
		}
	}
	return NULL;
}

/* Forgets the texts noted for a row that is not to be. */
static void
decoder_unnote(Decoder *decoder, int row)
{
	for (int i = 0; i < decoder->natts; i++)
		if (decoder->columns[i].text != NULL && decoder->columns[i].text[row] != NULL)
		{
			decoder->columns[i].text[row] = NULL;
			decoder->columns[i].ntext--;
		}
}

bool
streamext_decoder_ignores(const StreamConfig *config, const StreamRecord *record)
{
	if (unlikely(config->header) && record->payload != NULL)
		return config->format->is_header(config, record);
	return record->payload == NULL && !config->tombstones_rejected;
}

static void
decoder_parse(Decoder *decoder)
{
	Batch *batch = decoder->batch;

	batch->nrows = 0;
	for (int r = 0; r < batch->nrecords; r++)
	{
		const char *column;
		int			sqlstate;
		const char *reason;

		if (batch->connector != NULL && batch->records[r].message != NULL)
			batch->records[r].headers =
				NULL; /* of a record that was here before; what comes without a message brings its own */
		if (unlikely(streamext_decoder_ignores(decoder->config, &batch->records[r])))
			continue;
		if (unlikely(batch->set_aside != NIL) && streamext_batch_is_set_aside(batch, InvalidOid, r))
		{
			streamext_batch_reject(batch, InvalidOid, r, ERRCODE_INTERNAL_ERROR,
								   ((RejectedRecord *) linitial(batch->set_aside))->reason);
			continue;
		}
		reason = decoder_parse_record(decoder, &batch->records[r], batch->nrows, &column, &sqlstate);

		if (unlikely(reason != NULL))
		{
			if (column != NULL)
				reason = psprintf("column \"%s\": %s", column, reason);
			streamext_batch_reject(batch, InvalidOid, r, sqlstate, reason);
			decoder_unnote(decoder, batch->nrows);
			continue;
		}
		batch->record[batch->nrows] = r;
		decoder->bad[batch->nrows] = false;
		batch->nrows++;
	}
}

static void
decoder_mark_bad(Decoder *decoder, int row, int sqlstate, const char *reason)
{
	if (!decoder->bad[row])
	{
		decoder->bad[row] = true;
		decoder->nbad++;
		streamext_batch_reject(decoder->batch, InvalidOid, decoder->batch->record[row], sqlstate, reason);
	}
}

/* A value out of the scratch context into the batch's. */
static void
decoder_keep(Decoder *decoder, int att, int row)
{
	Form_pg_attribute attribute = TupleDescAttr(decoder->config->desc, att);
	Datum			 *value = &decoder->batch->values[att][row];
	MemoryContext	  scratch;

	if (attribute->attbyval)
		return;
	scratch = MemoryContextSwitchTo(decoder->batch->cxt);
	*value = datumCopy(*value, false, attribute->attlen);
	MemoryContextSwitchTo(scratch);
}

/* What values leave behind on their way is more than they are; memory that is given back is a page fault when it is wanted again. */
static void
decoder_clear_scratch(Decoder *decoder)
{
	if (MemoryContextMemAllocated(decoder->scratch, false) > DECODER_SCRATCH)
		MemoryContextReset(decoder->scratch);
}

/* Converts a column's noted texts from row *row on, and shows NULLs to a domain; raises at *row. In the scratch context. */
static void
decoder_convert_rows(Decoder *decoder, int att, volatile int *row)
{
	Batch		  *batch = decoder->batch;
	DecoderColumn *col = &decoder->columns[att];

	for (; *row < batch->nrows; (*row)++)
	{
		char *s = col->text != NULL ? col->text[*row] : NULL;

		if (decoder->bad[*row])
			continue;
		decoder_clear_scratch(decoder);
		if (s != NULL)
		{
			batch->values[att][*row] = streamext_value_convert(col->input, s);
			decoder_keep(decoder, att, *row);
		}
		else if (batch->nulls[att][*row] && streamext_value_checks_null(col->input))
			streamext_value_check_null(col->input);
	}
}

/* NULLs of a domain that may refuse them; what was INSERTed has been checked. */
static bool
decoder_has_checked_null(Decoder *decoder, int att)
{
	DecoderColumn *col = &decoder->columns[att];

	if (col->input == NULL || !streamext_value_checks_null(col->input) || decoder->config->format->rows)
		return false;
	for (int row = 0; row < decoder->batch->nrows; row++)
		if (decoder->batch->nulls[att][row])
			return true;
	return false;
}

typedef struct ConvertStep
{
	Decoder		*decoder;
	int			 att;
	volatile int row;
} ConvertStep;

/* A StreamextStep. */
static void
decoder_convert_step(void *arg)
{
	ConvertStep *step = arg;

	decoder_convert_rows(step->decoder, step->att, &step->row);
}

/* Whether the row is to blame; if not the error is raised. An internal one is a row's if the batch is tried again and others go through. */
static void
decoder_judge(Decoder *decoder, ErrorData *error)
{
	ErrorBlame blame = streamext_error_blame(error);

	if (blame == BLAME_GENERAL || (blame == BLAME_INTERNAL && !decoder->batch->again))
		ReThrowError(error);
	if (blame == BLAME_INTERNAL && ++decoder->ninternal == decoder->batch->nrows)
		ReThrowError(error);
}

/* What there is no value for: NULL if the column's option says so, and then a domain may refuse that; else the row goes. */
static void
decoder_convert_failed(Decoder *decoder, int att, int row, ErrorData *error)
{
	Batch		  *batch = decoder->batch;
	DecoderColumn *col = &decoder->columns[att];

	decoder_judge(decoder, error);
	col->rejected += col->text != NULL && col->text[row] != NULL;
	if (col->text != NULL && col->text[row] != NULL && col->column->bad_is_null)
	{
		col->text[row] = NULL;
		batch->values[att][row] = (Datum) 0;
		batch->nulls[att][row] = true;
	}
	else
		decoder_mark_bad(decoder, row, error->sqlerrcode,
						 psprintf("column \"%s\": %s%s%s%s", col->column->name, error->message,
								  error->detail != NULL ? " (" : "", error->detail != NULL ? error->detail : "",
								  error->detail != NULL ? ")" : ""));
	FreeErrorData(error);
}

/* Converts a plain column's texts from the step's row on. The error, with the row at the culprit, or NULL: all are through. */
static ErrorData *
decoder_try_plain(ConvertStep *step)
{
	MemoryContext cxt = CurrentMemoryContext;
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		decoder_convert_step(step);
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	return error;
}

/* Converts a column's texts, in the scratch context; what conversions that failed have left in contexts below it is gone. */
static void
decoder_convert_texts(Decoder *decoder, int att)
{
	DecoderColumn *col = &decoder->columns[att];
	ConvertStep	   step = { decoder, att, 0 };
	bool		   plain = streamext_value_converts_plainly(col->column->type, col->structured);

	while (step.row < decoder->batch->nrows)
	{
		ErrorData *error = plain ? decoder_try_plain(&step) : streamext_try(decoder_convert_step, &step);

		CHECK_FOR_INTERRUPTS();
		if (error == NULL)
			break;
		/* at the same row again: it is marked, or NULL now */
		decoder_convert_failed(decoder, att, step.row, error);
		MemoryContextDeleteChildren(CurrentMemoryContext);
	}
}

/* Pass 2 for one column. */
static void
decoder_convert(Decoder *decoder, int att)
{
	DecoderColumn *col = &decoder->columns[att];
	MemoryContext  old = CurrentMemoryContext;

	if (unlikely(col->column->time_zone != NULL))
		streamext_identity_set("TimeZone", col->column->time_zone);
	MemoryContextSwitchTo(decoder->scratch);
	decoder_convert_texts(decoder, att);
	MemoryContextSwitchTo(old);
	MemoryContextReset(decoder->scratch);
	if (unlikely(col->column->time_zone != NULL))
		streamext_identity_set("TimeZone", "UTC");
	if (col->text != NULL)
		memset(col->text, 0, sizeof(char *) * decoder->batch->nrows);
	col->ntext = 0;
}

/* Pass 3: NOT NULL and event times. */
static void
decoder_check(Decoder *decoder, TimestampTz now)
{
	Batch		 *batch = decoder->batch;
	StreamConfig *config = decoder->config;
	TimestampTz	  latest = now + config->time.max_ahead;

	for (int i = 0; i < decoder->natts; i++)
	{
		if (!config->columns[i].notnull || decoder->columns[i].way == WAY_NULL)
			continue;
		for (int row = 0; row < batch->nrows; row++)
			if (unlikely(batch->nulls[i][row]))
				decoder_mark_bad(decoder, row, ERRCODE_NOT_NULL_VIOLATION,
								 psprintf("null value in column \"%s\"", config->columns[i].name));
	}

	for (int row = 0; row < batch->nrows; row++)
	{
		TimestampTz t = batch->records[batch->record[row]].timestamp;

		if (config->event_time > 0)
		{
			if (unlikely(batch->nulls[config->event_time - 1][row]))
			{
				decoder_mark_bad(decoder, row, ERRCODE_NOT_NULL_VIOLATION, "the event time is null");
				continue;
			}
			t = DatumGetTimestampTz(batch->values[config->event_time - 1][row]);
		}
		batch->event_time[row] = t;
		if (unlikely(TIMESTAMP_NOT_FINITE(t)))
			decoder_mark_bad(decoder, row, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE, "the event time is infinite");
		else if (unlikely(t > latest))
			decoder_mark_bad(decoder, row, ERRCODE_DATETIME_VALUE_OUT_OF_RANGE,
							 "the event time is further ahead of the clock than max_ahead allows");
	}
}

/* Squeezes the rows marked bad out of the vectors. */
static void
decoder_compact(Decoder *decoder)
{
	Batch *batch = decoder->batch;
	int	   to = 0;

	for (int row = 0; row < batch->nrows; row++)
	{
		if (decoder->bad[row])
			continue;
		if (to != row)
		{
			for (int i = 0; i < decoder->natts; i++)
			{
				batch->values[i][to] = batch->values[i][row];
				batch->nulls[i][to] = batch->nulls[i][row];
			}
			batch->record[to] = batch->record[row];
			batch->event_time[to] = batch->event_time[row];
		}
		to++;
	}
	batch->nrows = to;
}

void
streamext_decoder_run(Decoder *decoder, Batch *batch, TimestampTz now)
{
	MemoryContext old = MemoryContextSwitchTo(batch->cxt);

	Assert(batch->nrecords <= STREAMEXT_BATCH_ROWS);
	decoder->batch = batch;
	decoder->arena_left = 0;
	decoder->nbad = decoder->ninternal = decoder->nread = 0;
	for (int i = 0; i < decoder->natts; i++)
		decoder->columns[i].missing = decoder->columns[i].null = decoder->columns[i].rejected =
			decoder->columns[i].unseen = 0;
	for (int i = 0; i < decoder->natts; i++)
		if (decoder->columns[i].ntext > 0) /* left by a run that raised */
		{
			memset(decoder->columns[i].text, 0, sizeof(char *) * STREAMEXT_BATCH_ROWS);
			decoder->columns[i].ntext = 0;
		}

	for (int i = 0; i < decoder->natts; i++)
		if (decoder->columns[i].way == WAY_NULL)
			memset(batch->nulls[i], true, sizeof(bool) * batch->nrecords);
	decoder_parse(decoder);
	decoder->nread += batch->nrows;
	for (int i = 0; i < decoder->natts; i++)
		if (decoder->columns[i].ntext > 0 || decoder_has_checked_null(decoder, i))
			decoder_convert(decoder, i);
	decoder_check(decoder, now);
	if (decoder->nbad > 0)
		decoder_compact(decoder);

	MemoryContextSwitchTo(old);
}

bytea *
streamext_decoder_payload(Decoder *decoder, const StreamRecord *record)
{
	const char *payload = record->payload != NULL ? record->payload : "";
	Size		size = record->payload != NULL ? record->payload_size : 0;
	bytea	   *result;

	if (decoder->config->format->rows)
	{
		IdentityScope scope = streamext_decoder_enter(decoder); /* casts to json are the types' own */
		text		 *json = streamext_row_json(decoder->format, record);

		streamext_identity_leave(scope);
		if (json != NULL)
		{
			payload = VARDATA_ANY(json);
			size = VARSIZE_ANY_EXHDR(json);
		}
	}
	result = palloc(VARHDRSZ + size);
	SET_VARSIZE(result, VARHDRSZ + size);
	memcpy(VARDATA(result), payload, size);
	return result;
}
