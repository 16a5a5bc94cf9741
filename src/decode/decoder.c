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

#include <math.h>

#include "access/htup_details.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

#include "base/transaction.h"
#include "decode/decoder.h"
#include "decode/csv.h"
#include "decode/json.h"
#include "decode/number.h"
#include "decode/time.h"
#include "decode/value.h"

#define ARENA_BLOCK (64 * 1024)

/* How a column's values are made. */
typedef enum ColumnWay
{
	WAY_NULL, /* dropped column */
	WAY_BOOL,
	WAY_INT, /* int2, int4, int8 */
	WAY_FLOAT4,
	WAY_FLOAT8,
	WAY_TEXT, /* text, varchar without length */
	WAY_TIMESTAMPTZ,
	WAY_INPUT, /* the type's input function */
	WAY_METADATA
} ColumnWay;

typedef struct DecoderColumn
{
	ColumnWay			way;
	const StreamColumn *column;
	int					wanted; /* number at the JSON parser; csv: of the field, from 0 */
	ValueInput		   *input;
	bool				structured; /* from JSON: an array or composite type */
	char			  **text;		/* [row] to be converted, or NULL; made when first needed, cleared for each batch */
	int					ntext;
} DecoderColumn;

struct Decoder
{
	MemoryContext		  cxt;
	StreamConfig		 *config;
	int					  natts;
	DecoderColumn		 *columns;
	JsonParser			 *json;
	MemoryContextCallback json_callback;
	JsonValue			 *json_values;
	CsvParser			 *csv;
	CsvField			 *csv_fields;
	int					  csv_wanted; /* fields up to the last that a column takes */
	bool				  csv_exact;  /* no column has a path: there must be as many fields as columns */

	/* of the batch at hand */
	Batch *batch;
	char  *arena; /* free rest of the current block */
	Size   arena_left;
	bool  *bad; /* [row] */
	int	   nbad;
	int	   ninternal; /* of these, by internal errors */
};

static void
decoder_free_json(void *arg)
{
	streamext_json_destroy((JsonParser *) arg);
}

static JsonWant
decoder_json_want(const DecoderColumn *col)
{
	switch (col->way)
	{
		case WAY_BOOL:
			return JSON_WANT_BOOL;
		case WAY_INT:
			return JSON_WANT_INT;
		case WAY_FLOAT8:
			return JSON_WANT_DOUBLE;
		default:
			return col->column->type == JSONOID || col->column->type == JSONBOID || col->structured ? JSON_WANT_RAW
																									: JSON_WANT_TEXT;
	}
}

static ColumnWay
decoder_column_way(const StreamColumn *column)
{
	if (column->dropped)
		return WAY_NULL;
	if (column->metadata != METADATA_NONE)
		return WAY_METADATA;
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
			return column->typmod < 0 ? WAY_TIMESTAMPTZ : WAY_INPUT;
		default:
			return WAY_INPUT;
	}
}

static void
decoder_add_json(Decoder *decoder)
{
	decoder->json = streamext_json_create(STREAMEXT_MAX_DEPTH);
	if (decoder->json == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for the JSON parser")));
	decoder->json_callback.func = decoder_free_json;
	decoder->json_callback.arg = decoder->json;
	MemoryContextRegisterResetCallback(decoder->cxt, &decoder->json_callback);

	for (int i = 0; i < decoder->natts; i++)
	{
		DecoderColumn *col = &decoder->columns[i];

		if (col->way == WAY_NULL || col->way == WAY_METADATA)
			continue;
		col->wanted = streamext_json_want(decoder->json, col->column->name, col->column->path, decoder_json_want(col));
		if (col->wanted == -1)
			ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
							errmsg("invalid path \"%s\" of column \"%s\"", col->column->path, col->column->name),
							errhint("A path is like a.b[0].c, optionally behind \"$.\"; \"$\" is the whole payload.")));
		if (col->wanted < 0)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for the JSON parser")));
	}
	decoder->json_values = palloc(sizeof(JsonValue) * (decoder->natts + 1));
}

/* A column without a path takes the field of its own place among the columns that the payload has. */
static void
decoder_add_csv(Decoder *decoder)
{
	int place = 0;

	decoder->csv = streamext_csv_create(&decoder->config->csv);
	decoder->csv_exact = true;
	for (int i = 0; i < decoder->natts; i++)
	{
		DecoderColumn *col = &decoder->columns[i];

		if (col->way == WAY_NULL || col->way == WAY_METADATA)
			continue;
		col->wanted = place++;
		if (col->column->path != NULL)
		{
			col->wanted = streamext_csv_path(col->column->path) - 1;
			decoder->csv_exact = false;
		}
		decoder->csv_wanted = Max(decoder->csv_wanted, col->wanted + 1);
	}
	decoder->csv_exact = decoder->csv_exact && place > 0;
	decoder->csv_fields = palloc(sizeof(CsvField) * (decoder->csv_wanted + 1));
}

Decoder *
streamext_decoder_create(StreamConfig *config, MemoryContext cxt)
{
	MemoryContext own = AllocSetContextCreate(cxt, "streamext decoder", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(own);
	Decoder		 *decoder = palloc0(sizeof(Decoder));
	IdentityScope scope;

	decoder->cxt = own;
	decoder->config = config;
	decoder->natts = config->desc->natts;
	decoder->columns = palloc0(sizeof(DecoderColumn) * Max(decoder->natts, 1));
	decoder->bad = palloc0(sizeof(bool) * STREAMEXT_BATCH_ROWS);

	/* to look at a domain is to fold the constants of its checks */
	scope = streamext_decoder_enter(decoder);
	for (int i = 0; i < decoder->natts; i++)
	{
		DecoderColumn *col = &decoder->columns[i];

		col->column = &config->columns[i];
		col->way = decoder_column_way(col->column);
		if (col->way == WAY_NULL)
			continue;
		col->structured =
			config->format == FORMAT_JSON && col->way == WAY_INPUT && streamext_value_is_structured(col->column->type);
		col->input = streamext_value_input(col->column, col->structured, own);
	}
	if (config->format == FORMAT_JSON)
		decoder_add_json(decoder);
	else if (config->format == FORMAT_CSV)
		decoder_add_csv(decoder);
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
	return scope;
}

/* size bytes of the batch's memory, 8-aligned, without an allocation each. */
static inline void *
decoder_alloc(Decoder *decoder, Size size)
{
	void *result;

	size = MAXALIGN(size);
	if (unlikely(size > decoder->arena_left))
	{
		if (size > ARENA_BLOCK / 4)
			return MemoryContextAlloc(decoder->batch->cxt, size);
		decoder->arena = MemoryContextAlloc(decoder->batch->cxt, ARENA_BLOCK);
		decoder->arena_left = ARENA_BLOCK;
	}
	result = decoder->arena;
	decoder->arena += size;
	decoder->arena_left -= size;
	return result;
}

static inline Datum
decoder_text(Decoder *decoder, const char *s, Size size)
{
	text *t = decoder_alloc(decoder, VARHDRSZ + size);

	SET_VARSIZE(t, VARHDRSZ + size);
	memcpy(VARDATA(t), s, size);
	return PointerGetDatum(t);
}

/* Notes a text for the conversion pass. False and a reason if no type could take it. */
static const char *
decoder_note(Decoder *decoder, DecoderColumn *col, int row, const char *s, Size size)
{
	char *copy;

	if (memchr(s, '\0', size) != NULL)
		return "the value holds a NUL character";
	if (col->text == NULL)
		col->text = MemoryContextAllocZero(decoder->cxt, sizeof(char *) * STREAMEXT_BATCH_ROWS);
	copy = decoder_alloc(decoder, size + 1);
	memcpy(copy, s, size);
	copy[size] = '\0';
	col->text[row] = copy;
	col->ntext++;
	return NULL;
}

static bool
decoder_int_fits(Oid type, int64 i)
{
	return type == INT8OID	 ? true
		   : type == INT4OID ? i >= PG_INT32_MIN && i <= PG_INT32_MAX
							 : i >= PG_INT16_MIN && i <= PG_INT16_MAX;
}

static inline Datum
decoder_int_datum(Oid type, int64 i)
{
	return type == INT8OID ? Int64GetDatum(i) : type == INT4OID ? Int32GetDatum((int32) i) : Int16GetDatum((int16) i);
}

/*
 * A value's text into its vector, by the fast paths of text, times and float4, else noted for the conversion pass. NULL or the
 * reason to reject, with *sqlstate.
 */
static inline const char *
decoder_text_value(Decoder *decoder, DecoderColumn *col, const char *s, uint32 size, int row, Datum *value,
				   int *sqlstate)
{
	const char *reason;

	if (col->way == WAY_TEXT)
	{
		*value = decoder_text(decoder, s, size);
		return NULL;
	}
	if (col->way == WAY_TIMESTAMPTZ)
	{
		TimestampTz t;

		if (streamext_parse_time(s, size, &t))
		{
			*value = TimestampTzGetDatum(t);
			return NULL;
		}
	}
	if (col->way == WAY_FLOAT4 && size < 64)
	{
		char  number[64];
		char *stop;
		float f;

		memcpy(number, s, size);
		number[size] = '\0';
		errno = 0;
		f = strtof(number, &stop);
		if (errno == 0 && f != 0 && isfinite(f) && stop == number + size &&
			(number[0] == '-' || (number[0] >= '0' && number[0] <= '9')))
		{
			*value = Float4GetDatum(f);
			return NULL;
		}
	}
	reason = decoder_note(decoder, col, row, s, size);
	if (reason != NULL)
		*sqlstate = ERRCODE_UNTRANSLATABLE_CHARACTER;
	return reason;
}

/* One JSON value into its vector; NULL or the reason to reject, with *sqlstate. */
static inline const char *
decoder_json_value(Decoder *decoder, DecoderColumn *col, const JsonValue *v, int row, Datum *value, bool *isnull,
				   int *sqlstate)
{
	*isnull = false;
	switch (v->kind)
	{
		case JSON_MISSING:
			*isnull = true;
			*value = (Datum) 0;
			return NULL;
		case JSON_BOOL:
			*value = BoolGetDatum(v->u.b);
			return NULL;
		case JSON_DOUBLE:
			*value = Float8GetDatum(v->u.d);
			return NULL;
		case JSON_INT:
			if (decoder_int_fits(col->column->type, v->u.i))
			{
				*value = decoder_int_datum(col->column->type, v->u.i);
				return NULL;
			}
			*sqlstate = ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
			return "value is out of range";
		default:
			break;
	}
	if (col->way == WAY_TEXT && v->kind == JSON_STRING && memchr(v->u.s, '\0', v->size) != NULL)
	{
		*sqlstate = ERRCODE_UNTRANSLATABLE_CHARACTER;
		return "the value holds a NUL character";
	}
	return decoder_text_value(decoder, col, v->u.s, v->size, row, value, sqlstate);
}

/* One CSV field into its vector; the same promise. */
static inline const char *
decoder_csv_value(Decoder *decoder, DecoderColumn *col, const CsvField *field, int row, Datum *value, bool *isnull,
				  int *sqlstate)
{
	DecimalNumber number;
	double		  d;

	*isnull = field->isnull;
	*value = (Datum) 0;
	if (field->isnull)
		return NULL;
	if ((col->way == WAY_INT || col->way == WAY_FLOAT8) && streamext_parse_decimal(field->s, field->size, &number))
	{
		if (col->way == WAY_FLOAT8 && streamext_decimal_double(&number, &d))
		{
			*value = Float8GetDatum(d);
			return NULL;
		}
		if (col->way == WAY_INT && number.scale == 0 &&
			decoder_int_fits(col->column->type, streamext_decimal_int(&number)))
		{
			*value = decoder_int_datum(col->column->type, streamext_decimal_int(&number));
			return NULL;
		}
	}
	else if (col->way == WAY_BOOL && field->size == 1 && (*field->s == 't' || *field->s == 'f'))
	{
		*value = BoolGetDatum(*field->s == 't');
		return NULL;
	}
	return decoder_text_value(decoder, col, field->s, field->size, row, value, sqlstate);
}

/* Text or bytea from a record's bytes; NULL or the reason to reject. */
static const char *
decoder_bytes(Decoder *decoder, DecoderColumn *col, const char *s, Size size, int row, Datum *value, int *sqlstate)
{
	if (col->column->type == BYTEAOID)
	{
		*value = decoder_text(decoder, s, size); /* bytea has the same layout */
		return NULL;
	}
	if (pg_encoding_verifymbstr(PG_UTF8, s, size) != size || memchr(s, '\0', size) != NULL)
	{
		*sqlstate = ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
		return "not valid UTF-8, or it holds a NUL character";
	}
	if (col->column->type == TEXTOID || (col->column->type == VARCHAROID && col->column->typmod < 0))
	{
		*value = decoder_text(decoder, s, size);
		return NULL;
	}
	return decoder_note(decoder, col, row, s, size);
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
			return decoder_bytes(decoder, col, record->topic, strlen(record->topic), row, value, sqlstate);
		case METADATA_PARTITION:
			*value = decoder_int_datum(col->column->type, record->partition);
			return NULL;
		case METADATA_OFFSET:
			*value = decoder_int_datum(col->column->type, record->position);
			return NULL;
		case METADATA_KEY:
			if (record->key != NULL)
				return decoder_bytes(decoder, col, record->key, record->key_size, row, value, sqlstate);
			break;
		case METADATA_TIMESTAMP:
			*value = TimestampTzGetDatum(record->timestamp);
			return NULL;
		case METADATA_HEADERS:
		{
			Connector *connector = decoder->batch->connector;

			if (connector != NULL && connector->ops->headers != NULL && record->message != NULL)
				record->headers = connector->ops->headers(connector, record);
			if (record->headers != NULL)
				return decoder_bytes(decoder, col, record->headers, strlen(record->headers), row, value, sqlstate);
			break;
		}
		case METADATA_QOS:
			*value = decoder_int_datum(col->column->type, record->qos);
			return NULL;
		case METADATA_RETAINED:
			*value = BoolGetDatum(record->retained);
			return NULL;
		case METADATA_OWN:
			if (decoder->config->connector->own_metadata(record, col->column, &s, &size))
				return decoder_bytes(decoder, col, s, size, row, value, sqlstate);
			break;
		case METADATA_NONE:
			break;
	}
	*isnull = true;
	return NULL;
}

/* A row as INSERT made it. The tuple is copied: payloads are not aligned and end with the poll. */
static const char *
decoder_row_payload(Decoder *decoder, const StreamRecord *record, Datum *values, bool *nulls, int *sqlstate)
{
	MinimalTuple  tuple;
	HeapTupleData htup;

	*sqlstate = ERRCODE_DATATYPE_MISMATCH;
	if (record->row_type_hash != decoder->config->row_type_hash)
		return "the row was inserted before the stream's columns were changed";
	*sqlstate = ERRCODE_DATA_CORRUPTED;
	if (record->payload_size < SizeofMinimalTupleHeader)
		return "the row is cut off";
	tuple = decoder_alloc(decoder, record->payload_size);
	memcpy(tuple, record->payload, record->payload_size);
	if (tuple->t_len != record->payload_size)
		return "the row is cut off";
	htup.t_len = tuple->t_len + MINIMAL_TUPLE_OFFSET;
	htup.t_data = (HeapTupleHeader) ((char *) tuple - MINIMAL_TUPLE_OFFSET);
	htup.t_tableOid = InvalidOid;
	ItemPointerSetInvalid(&htup.t_self);
	heap_deform_tuple(&htup, decoder->config->desc, values, nulls);
	return NULL;
}

/* The fields of a payload that columns take; NULL or the reason to reject. */
static const char *
decoder_csv_payload(Decoder *decoder, const StreamRecord *record, int *sqlstate)
{
	int			count;
	const char *reason = streamext_csv_parse(decoder->csv, record->payload, record->payload_size, decoder->csv_fields,
											 decoder->csv_wanted, &count, sqlstate);

	if (reason == NULL && (decoder->csv_exact ? count != decoder->csv_wanted : count < decoder->csv_wanted))
		reason = psprintf("the payload has %d fields, not %s%d", count, decoder->csv_exact ? "" : "at least ",
						  decoder->csv_wanted);
	return reason;
}

/* Pass 1 for one record into row `row`; NULL or the reason to reject. */
static const char *
decoder_parse_record(Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate)
{
	Batch		*batch = decoder->batch;
	StreamFormat format = decoder->config->format;
	const char	*reason = NULL;
	Datum		 row_values[MaxTupleAttributeNumber];
	bool		 row_nulls[MaxTupleAttributeNumber];

	*column = NULL;
	*sqlstate = ERRCODE_INVALID_TEXT_REPRESENTATION;
	if (record->payload == NULL)
	{
		*sqlstate = ERRCODE_NULL_VALUE_NOT_ALLOWED;
		return "the record has no payload (a tombstone)";
	}
	if (record->payload_size > STREAMEXT_MAX_RECORD)
	{
		*sqlstate = ERRCODE_PROGRAM_LIMIT_EXCEEDED;
		return psprintf("the payload is larger than %d bytes", STREAMEXT_MAX_RECORD);
	}
	if (format == FORMAT_JSON)
	{
		reason = streamext_json_parse(decoder->json, record->payload, record->payload_size, decoder->json_values);
		if (reason != NULL)
			return reason;
	}
	else if (format == FORMAT_CSV)
	{
		reason = decoder_csv_payload(decoder, record, sqlstate);
		if (reason != NULL)
			return reason;
		*sqlstate = ERRCODE_INVALID_TEXT_REPRESENTATION;
	}
	else if (format == FORMAT_ROW)
	{
		reason = decoder_row_payload(decoder, record, row_values, row_nulls, sqlstate);
		if (reason != NULL)
			return reason;
	}

	for (int i = 0; i < decoder->natts; i++)
	{
		DecoderColumn *col = &decoder->columns[i];
		Datum		  *value = &batch->values[i][row];
		bool		  *isnull = &batch->nulls[i][row];

		if (col->way == WAY_NULL)
		{
			*isnull = true;
			continue;
		}
		if (col->way == WAY_METADATA)
			reason = decoder_metadata(decoder, col, record, row, value, isnull, sqlstate);
		else if (format == FORMAT_JSON)
			reason = decoder_json_value(decoder, col, &decoder->json_values[col->wanted], row, value, isnull, sqlstate);
		else if (format == FORMAT_CSV)
			reason = decoder_csv_value(decoder, col, &decoder->csv_fields[col->wanted], row, value, isnull, sqlstate);
		else if (format == FORMAT_ROW)
		{
			*value = row_values[i];
			*isnull = row_nulls[i];
		}
		else
		{
			*isnull = false;
			reason = decoder_bytes(decoder, col, record->payload, record->payload_size, row, value, sqlstate);
		}
		if (reason != NULL)
		{
			*column = col->column->name;
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

/* Converts a column's noted texts from row *row on, and shows NULLs to a domain; raises at *row. */
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
		if (s != NULL)
			batch->values[att][*row] = streamext_value_convert(col->input, s);
		else if (batch->nulls[att][*row] && streamext_value_checks_null(col->input))
			streamext_value_check_null(col->input);
	}
}

/* NULLs of a domain that may refuse them; what was INSERTed has been checked. */
static bool
decoder_has_checked_null(Decoder *decoder, int att)
{
	DecoderColumn *col = &decoder->columns[att];

	if (col->input == NULL || !streamext_value_checks_null(col->input) || decoder->config->format == FORMAT_ROW)
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

/* Pass 2 for one column. */
static void
decoder_convert(Decoder *decoder, int att)
{
	DecoderColumn *col = &decoder->columns[att];
	ConvertStep	   step = { decoder, att, 0 };

	while (step.row < decoder->batch->nrows)
	{
		ErrorData *error = streamext_try(decoder_convert_step, &step);

		CHECK_FOR_INTERRUPTS();
		if (error == NULL)
			break;
		decoder_judge(decoder, error);
		decoder_mark_bad(decoder, step.row, error->sqlerrcode,
						 psprintf("column \"%s\": %s", col->column->name, error->message));
		FreeErrorData(error);
		step.row++;
	}
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
	TimestampTz	  latest = now + config->max_ahead;

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
	decoder->nbad = decoder->ninternal = 0;
	for (int i = 0; i < decoder->natts; i++)
		if (decoder->columns[i].ntext > 0) /* left by a run that raised */
		{
			memset(decoder->columns[i].text, 0, sizeof(char *) * STREAMEXT_BATCH_ROWS);
			decoder->columns[i].ntext = 0;
		}

	decoder_parse(decoder);
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

	if (decoder->config->format == FORMAT_ROW && record->row_type_hash == decoder->config->row_type_hash &&
		size > SizeofMinimalTupleHeader)
	{
		MinimalTuple tuple = palloc(size);
		TupleDesc	 desc = lookup_rowtype_tupdesc(get_rel_type_id(decoder->config->relid), -1);
		Datum		 row;
		text		*json;

		IdentityScope scope = streamext_decoder_enter(decoder); /* casts to json are the types' own */

		memcpy(tuple, payload, size);
		row = heap_copy_tuple_as_datum(heap_tuple_from_minimal_tuple(tuple), desc);
		ReleaseTupleDesc(desc);
		json = DatumGetTextPP(DirectFunctionCall1(row_to_json, row));
		payload = VARDATA_ANY(json);
		size = VARSIZE_ANY_EXHDR(json);
		streamext_identity_leave(scope);
	}
	result = palloc(VARHDRSZ + size);
	SET_VARSIZE(result, VARHDRSZ + size);
	memcpy(VARDATA(result), payload, size);
	return result;
}
