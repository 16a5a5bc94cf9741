/*
 * decode/format_csv.c
 *		Payloads of one line of CSV, whose fields are found by the columns' places, or by numbers in their paths.
 */
#include "base/streamext.h"

#include "decode/column.h"
#include "decode/csv.h"
#include "base/number.h"

typedef struct CsvFormat
{
	CsvDialect dialect;
	CsvParser *parser;
	CsvField  *fields;
	int		   wanted; /* fields up to the last that a column takes */
	bool	   exact;  /* no column has a path: there must be as many fields as columns */
} CsvFormat;

static const char *const words_header[] = { "false", "true", NULL };

static const OptionSpec csv_options[] = {
	{ "header", PLACE_TABLE, OPTION_ENUM, words_header, .preset = 0 },
	{ "delimiter", PLACE_TABLE, OPTION_BYTE },
	{ "quote", PLACE_TABLE, OPTION_BYTE },
	{ "escape", PLACE_TABLE, OPTION_BYTE },
	{ "null", PLACE_TABLE, OPTION_ANY },
	{ NULL },
};

/* As COPY has them. */
static CsvDialect
csv_dialect(List *options)
{
	const char *delimiter = streamext_option(options, "delimiter");
	const char *quote = streamext_option(options, "quote");
	const char *escape = streamext_option(options, "escape");
	const char *null = streamext_option(options, "null");
	CsvDialect	csv;

	csv.delimiter = delimiter != NULL ? delimiter[0] : ',';
	csv.quote = quote != NULL ? quote[0] : '"';
	csv.escape = escape != NULL ? escape[0] : csv.quote;
	csv.null = pstrdup(null != NULL ? null : "");
	return csv;
}

static void
csv_check_options(List *options)
{
	CsvDialect csv = csv_dialect(options);

	if (csv.delimiter == csv.quote)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("options \"delimiter\" and \"quote\" must be different")));
	if (strchr(csv.null, csv.delimiter) != NULL || strchr(csv.null, csv.quote) != NULL)
		ereport(ERROR, (errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
						errmsg("option \"null\" must not contain the delimiter or the quote character")));
}

static void
csv_check_path(const StreamColumn *column)
{
	if (streamext_csv_path(column->path) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("invalid path \"%s\" of column \"%s\"", column->path, column->name),
				 errhint("With format csv a path is the number of a field, from 1 to %d.", STREAMEXT_MAX_CSV_FIELD)));
}

/* A column without a path takes the field of its own place among the columns that the payload has. */
static void *
csv_open(Decoder *decoder)
{
	CsvFormat *csv = palloc0(sizeof(CsvFormat));

	csv->dialect = csv_dialect(decoder->config->table_options);
	csv->parser = streamext_csv_create(&csv->dialect);
	csv->exact = true;
	for (int i = 0; i < decoder->npayload; i++)
	{
		DecoderColumn *col = &decoder->columns[decoder->payload[i]];

		col->wanted = i;
		if (col->column->path != NULL)
		{
			col->wanted = streamext_csv_path(col->column->path) - 1;
			csv->exact = false;
		}
		csv->wanted = Max(csv->wanted, col->wanted + 1);
	}
	csv->exact = csv->exact && decoder->npayload > 0;
	csv->fields = palloc(sizeof(CsvField) * (csv->wanted + 1));
	return csv;
}

/* One CSV field into its vector; NULL or the reason to reject, with *sqlstate. */
static inline const char *
csv_value(Decoder *decoder, DecoderColumn *col, const CsvField *field, int row, Datum *value, bool *isnull,
		  int *sqlstate)
{
	DecimalNumber number;
	double		  d;

	*isnull = field->isnull;
	*value = (Datum) 0;
	if (field->isnull)
	{
		col->null++;
		return NULL;
	}
	if ((col->way == WAY_INT || col->way == WAY_FLOAT8) && streamext_parse_decimal(field->s, field->size, &number))
	{
		if (col->way == WAY_FLOAT8 && streamext_decimal_double(&number, &d))
		{
			*value = Float8GetDatum(d);
			return NULL;
		}
		if (col->way == WAY_INT && number.scale == 0 &&
			decode_int_fits(col->column->type, streamext_decimal_int(&number)))
		{
			*value = decode_int_datum(col->column->type, streamext_decimal_int(&number));
			return NULL;
		}
	}
	else if (col->way == WAY_BOOL && field->size == 1 && (*field->s == 't' || *field->s == 'f'))
	{
		*value = BoolGetDatum(*field->s == 't');
		return NULL;
	}
	return decode_text_value(decoder, col, field->s, field->size, row, value, sqlstate);
}

/* The fields of a payload that columns take; NULL or the reason to reject. */
static const char *
csv_payload(CsvFormat *csv, const StreamRecord *record, int *sqlstate)
{
	int			count;
	const char *reason = streamext_csv_parse(csv->parser, record->payload, record->payload_size, csv->fields,
											 csv->wanted, &count, sqlstate);

	if (reason == NULL && (csv->exact ? count != csv->wanted : count < csv->wanted))
		reason = psprintf("the payload has %d fields, not %s%d", count, csv->exact ? "" : "at least ", csv->wanted);
	return reason;
}

static const char *
csv_parse(Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate)
{
	CsvFormat  *csv = decoder->format;
	Batch	   *batch = decoder->batch;
	const char *reason = csv_payload(csv, record, sqlstate);

	if (reason != NULL)
		return reason;
	*sqlstate = ERRCODE_INVALID_TEXT_REPRESENTATION;
	for (int i = 0; i < decoder->npayload && reason == NULL; i++)
	{
		int			   att = decoder->payload[i];
		DecoderColumn *col = &decoder->columns[att];

		reason = csv_value(decoder, col, &csv->fields[col->wanted], row, &batch->values[att][row],
						   &batch->nulls[att][row], sqlstate);
		if (unlikely(reason != NULL) && decode_pass_over(decoder, i, row, column, sqlstate))
			reason = NULL;
	}
	return reason;
}

/* The field at *at, which goes behind it; false: it is another text than the name, in whatever case. */
static bool
csv_field_is(const char **at, const char *end, char delimiter, char quote, const char *name)
{
	const char *p = *at;
	bool		quoted = p < end && *p == quote;
	Size		size = name != NULL ? strlen(name) : 0;

	p += quoted;
	if (name != NULL && ((Size) (end - p) < size || pg_strncasecmp(p, name, size) != 0))
		return false;
	p += size;
	/* one that no column takes may be anything */
	while (name == NULL && p < end && *p != (quoted ? quote : delimiter))
		p++;
	if (quoted && (p == end || *p++ != quote))
		return false;
	if (p < end && *p != delimiter)
		return false;
	*at = p < end ? p + 1 : p;
	return true;
}

/* The name of the column that takes field n, from 0; NULL: none does. */
static const char *
csv_field_name(const StreamConfig *config, int n, int *last)
{
	const char *name = NULL;
	int			place = 0;

	*last = -1;
	for (int i = 0; i < config->desc->natts; i++)
	{
		const StreamColumn *column = &config->columns[i];
		int					field;

		if (column->dropped || column->metadata != METADATA_NONE)
			continue;
		field = column->path != NULL ? streamext_csv_path(column->path) - 1 : place;
		place++;
		*last = Max(*last, field);
		if (field == n)
			name = column->name;
	}
	return name;
}

/* Most records differ in the first letter. */
static bool
csv_is_header(const StreamConfig *config, const StreamRecord *record)
{
	CsvDialect	csv = csv_dialect(config->table_options);
	const char *at = record->payload;
	const char *end = at + record->payload_size;
	int			last;

	if (end - at >= 3 && memcmp(at, "\xef\xbb\xbf", 3) == 0)
		at += 3;
	while (end > at && (end[-1] == '\n' || end[-1] == '\r'))
		end--;
	for (int n = 0;; n++)
	{
		const char *name = csv_field_name(config, n, &last);

		if (n > last)
			return last >= 0;
		if (at == end || !csv_field_is(&at, end, csv.delimiter, csv.quote, name))
			return false;
	}
}

static char *
csv_text_of(const StreamConfig *config, const StreamColumn *column, const StreamRecord *record)
{
	CsvDialect dialect = csv_dialect(config->table_options);
	CsvField  *fields;
	int		   place = 0;
	int		   count;
	int		   sqlstate;

	if (column->path != NULL)
		place = streamext_csv_path(column->path) - 1;
	else
		for (int i = 0; &config->columns[i] != column; i++)
			place += !config->columns[i].dropped && config->columns[i].metadata == METADATA_NONE;
	fields = palloc(sizeof(CsvField) * (place + 1));
	if (streamext_csv_parse(streamext_csv_create(&dialect), record->payload, record->payload_size, fields, place + 1,
							&count, &sqlstate) != NULL ||
		count <= place || fields[place].isnull)
		return NULL;
	return pnstrdup(fields[place].s, fields[place].size);
}

const FormatOps streamext_csv_format = {
	.name = "csv",
	.lines = true,
	.paths = true,
	.options = csv_options,
	.check_options = csv_check_options,
	.check_path = csv_check_path,
	.open = csv_open,
	.parse = csv_parse,
	.is_header = csv_is_header,
	.text_of = csv_text_of,
};
