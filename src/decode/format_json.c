/*
 * decode/format_json.c
 *		Payloads of JSON: one object, whose fields are found by the columns' names or paths.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"

#include "base/json.h"
#include "base/path.h"
#include "decode/column.h"
#include "decode/write.h"

typedef struct JsonPayload
{
	JsonParser			 *parser;
	MemoryContextCallback callback;
	JsonValue			 *values;
} JsonPayload;

static void
json_free(void *arg)
{
	streamext_json_destroy((JsonParser *) arg);
}

static JsonWant
json_want(const DecoderColumn *col)
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

static void *
json_open(Decoder *decoder)
{
	JsonPayload *json = palloc0(sizeof(JsonPayload));

	json->parser = streamext_json_create(STREAMEXT_MAX_DEPTH, decoder->config->fields_nocase);
	if (json->parser == NULL)
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for the JSON parser")));
	json->callback.func = json_free;
	json->callback.arg = json->parser;
	MemoryContextRegisterResetCallback(decoder->cxt, &json->callback);

	for (int i = 0; i < decoder->npayload; i++)
	{
		DecoderColumn *col = &decoder->columns[decoder->payload[i]];

		col->wanted = streamext_json_want(json->parser, col->column->name, col->column->path, json_want(col));
		if (col->wanted == -1)
			ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
							errmsg("invalid path \"%s\" of column \"%s\"", col->column->path, col->column->name),
							errhint(STREAMEXT_PATH_HINT)));
		if (col->wanted < 0)
			ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory for the JSON parser")));
	}
	json->values = palloc(sizeof(JsonValue) * (decoder->natts + 1));
	return json;
}

/* One JSON value into its vector; NULL or the reason to reject, with *sqlstate. `nul`: a string may hold NUL. */
static inline const char *
json_value(Decoder *decoder, DecoderColumn *col, const JsonValue *v, bool nul, int row, Datum *value, bool *isnull,
		   int *sqlstate)
{
	*isnull = false;
	switch (v->kind)
	{
		case JSON_MISSING:
		case JSON_NULL:
			col->missing += v->kind == JSON_MISSING;
			col->null += v->kind == JSON_NULL;
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
			if (decode_int_fits(col->column->type, v->u.i))
			{
				*value = decode_int_datum(col->column->type, v->u.i);
				return NULL;
			}
			*sqlstate = ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE;
			return "value is out of range";
		default:
			break;
	}
	if (unlikely(nul) && col->way == WAY_TEXT && v->kind == JSON_STRING && memchr(v->u.s, '\0', v->size) != NULL)
	{
		*sqlstate = ERRCODE_UNTRANSLATABLE_CHARACTER;
		return "the value holds a NUL character";
	}
	if (unlikely(col->no_number) && v->kind == JSON_TEXT && (*v->u.s == '-' || (*v->u.s >= '0' && *v->u.s <= '9')))
	{
		*sqlstate = ERRCODE_DATETIME_VALUE_OUT_OF_RANGE;
		return STREAMEXT_NO_TIME_NUMBER;
	}
	return decode_text_value(decoder, col, v->u.s, v->size, row, value, sqlstate);
}

static const char *
json_parse(Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate)
{
	JsonPayload *json = decoder->format;
	Batch		*batch = decoder->batch;
	const char	*reason = streamext_json_parse(json->parser, record->payload, record->payload_size, json->values);
	bool		 nul = streamext_json_may_hold_nul(json->parser);

	for (int i = 0; i < decoder->npayload && reason == NULL; i++)
	{
		int			   att = decoder->payload[i];
		DecoderColumn *col = &decoder->columns[att];

		reason = json_value(decoder, col, &json->values[col->wanted], nul, row, &batch->values[att][row],
							&batch->nulls[att][row], sqlstate);
		if (unlikely(reason != NULL) && decode_pass_over(decoder, i, row, column, sqlstate))
			reason = NULL;
	}
	return reason;
}

const FormatOps streamext_json_format = {
	.name = "json",
	.names_fields = true,
	.paths = true,
	.json = true,
	.open = json_open,
	.parse = json_parse,
	.write = streamext_write_json,
};
