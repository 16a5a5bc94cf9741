/*
 * decode/format_flume.c
 *		Flume's events as its Kafka sink and channel write them: one Avro datum, a map of headers and the body (decode/avro.h), with nothing before
 *		and behind it. The body is a payload of the format that the option body_format names, which reads it as if it were the record's.
 *
 * What a format is, others ask by its traits, so there is an envelope around each.
 */
#include "base/streamext.h"

#include "catalog/pg_type.h"

#include "decode/avro.h"
#include "decode/column.h"
#include "source/connector.h"

typedef struct FlumePayload
{
	const FormatOps *body;
	void			*format; /* what its open made */
} FlumePayload;

static bool
flume_read(const StreamRecord *record, AvroEvent *event)
{
	AvroReader reader = { record->payload, record->payload + record->payload_size };

	return record->payload != NULL && streamext_avro_event(&reader, event) && reader.p == reader.end;
}

static void *
flume_open(Decoder *decoder)
{
	FlumePayload *flume = palloc0(sizeof(FlumePayload));

	flume->body = decoder->config->format->body;
	if (flume->body->open != NULL)
		flume->format = flume->body->open(decoder);
	return flume;
}

/* The record stays as it came. */
static const char *
flume_parse(Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate)
{
	FlumePayload *flume = decoder->format;
	StreamRecord  body = *record;
	AvroEvent	  event;
	const char	 *reason;

	if (!flume_read(record, &event))
		return "the payload is not a Flume event in Avro";
	body.payload = event.body;
	body.payload_size = event.body_size;
	if (unlikely(decoder->config->trims))
		streamext_decode_trim(&body);
	decoder->format = flume->format;
	reason = flume->body->parse(decoder, &body, row, column, sqlstate);
	decoder->format = flume;
	return reason;
}

static char *
flume_headers(Decoder *decoder, const StreamRecord *record)
{
	AvroItems	   items = { 0 };
	AvroEvent	   event;
	StringInfoData json;
	bool		   more;

	if (!flume_read(record, &event))
		return NULL;
	initStringInfo(&json);
	appendStringInfoChar(&json, '{');
	while (streamext_avro_item(&event.headers, &items, &more) && more)
	{
		const char *bytes;
		uint32		size;

		for (int i = 0; i < 2 && streamext_avro_bytes(&event.headers, &bytes, &size); i++)
		{
			appendStringInfoString(&json, i > 0 ? ": " : json.len > 1 ? ", " : "");
			streamext_connector_header_text(&json, bytes, size);
		}
	}
	appendStringInfoChar(&json, '}');
	return json.data;
}

/* Of several the last counts. */
static bool
flume_header(Decoder *decoder, const StreamRecord *record, const char *name, const char **value, Size *size)
{
	AvroItems items = { 0 };
	AvroEvent event;
	Size	  wanted = strlen(name);
	bool	  more, found = false;

	if (!flume_read(record, &event))
		return false;
	while (streamext_avro_item(&event.headers, &items, &more) && more)
	{
		const char *its, *text;
		uint32		its_size, text_size;

		if (!streamext_avro_bytes(&event.headers, &its, &its_size) ||
			!streamext_avro_bytes(&event.headers, &text, &text_size))
			return false;
		if (its_size != wanted || memcmp(its, name, wanted) != 0)
			continue;
		*value = text;
		*size = text_size;
		found = true;
	}
	return found;
}

static void
flume_check_path(const StreamColumn *column)
{
	streamext_csv_format.check_path(column);
}

static void flume_check_body(const OptionSpec *spec, const char *value);

static const OptionSpec flume_options[] = {
	{ "body_format", PLACE_TABLE, OPTION_TEXT, .check = flume_check_body },
	{ NULL },
};

static const FormatOps *flume_around(List *options);

#define FLUME_AROUND(inner, ...)                                                                                \
	{                                                                                                           \
		.name = "flume", .around = flume_around, .body = &streamext_##inner##_format, .options = flume_options, \
		.open = flume_open, .parse = flume_parse, .headers = flume_headers, .header = flume_header, __VA_ARGS__ \
	}

const FormatOps streamext_flume_format = FLUME_AROUND(json, .names_fields = true, .paths = true, .json = true);

static const FormatOps flume_csv = FLUME_AROUND(csv, .paths = true, .check_path = flume_check_path);
static const FormatOps flume_text = FLUME_AROUND(text, .one_column = true);
static const FormatOps flume_raw = FLUME_AROUND(raw, .one_column = true, .column_type = BYTEAOID);

static const FormatOps *const flume_formats[] = { &streamext_flume_format, &flume_csv, &flume_text, &flume_raw };

/* The one around the body's format; NULL: there is none. */
static const FormatOps *
flume_find(const char *body)
{
	for (int i = 0; i < lengthof(flume_formats); i++)
		if (strcmp(flume_formats[i]->body->name, body) == 0)
			return flume_formats[i];
	return NULL;
}

static void
flume_check_body(const OptionSpec *spec, const char *value)
{
	List *names = NIL;

	if (flume_find(value) != NULL)
		return;
	for (int i = 0; i < lengthof(flume_formats); i++)
		names = lappend(names, unconstify(char *, flume_formats[i]->body->name));
	streamext_option_not_of(spec, value, names);
}

static const FormatOps *
flume_around(List *options)
{
	const char		*body = streamext_option(options, "body_format");
	const FormatOps *found = body == NULL ? &streamext_flume_format : flume_find(body);

	if (found == NULL)
		elog(ERROR, "unknown format \"%s\"", body);
	return found;
}
