/*
 * decode/format.h
 *		What a format of payloads looks like to the decoder: one const ops struct each, in the one table of format.c.
 *
 * open once for a stream's definition, then parse for each record. parse puts a value, or NULL, into the batch's vectors for each of
 * decoder->payload's columns: one indirect call a record, and within it the format's own loop over columns (decode/column.h).
 */
#ifndef STREAMEXT_FORMAT_H
#define STREAMEXT_FORMAT_H

#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "base/option.h"
#include "base/record.h"
#include "base/stream_def.h"
#include "source/connector.h"

struct Decoder;
struct PayloadWriter;

typedef struct FormatOps
{
	const char *name; /* a word of the option format; of rows what the catalogue shows */

	bool rows;		   /* records are rows as INSERT made them: no choice, and checked already */
	bool names_fields; /* a column without the option path takes the field of its name */
	bool paths;		   /* columns may have the option path */
	bool json;		   /* values of arrays and composite types are JSON */
	bool one_column;   /* the payload is the one column without metadata */
	bool lines;		   /* a body of several records has a line for each, but for what is quoted: text/csv and no JSON */

	/*
	 * Of an envelope: the one around the body that the option body_format names; its traits are then those of the body's format, which is
	 * `body`. NULL: it is none. An envelope may have headers, which are then the record's: as jsonb text, palloc'd, and the one of a name, good
	 * as long as the payload; both of a payload that was parsed, and NULL or false if there is none.
	 */
	const struct FormatOps *(*around)(List *options);
	const struct FormatOps *body;
	char *(*headers)(struct Decoder *decoder, const StreamRecord *record);
	bool (*header)(struct Decoder *decoder, const StreamRecord *record, const char *name, const char **value,
				   Size *size);

	/* Options that only this format has: given with another one they are refused. May be NULL, as the checks. */
	const OptionSpec *options;
	/* What a table's options mean together; raises. An envelope's body is asked by itself. */
	void (*check_options)(List *options);
	/* Of a column that has a path; raises. */
	void (*check_path)(const StreamColumn *column);
	/* The type that one_column's column must have; InvalidOid: any. */
	Oid column_type;

	/* In the decoder's context, in a transaction, as the stream's owner; decoder->payload and the columns are there. May raise. */
	void *(*open)(struct Decoder *decoder);

	/*
	 * The record's values into row `row`. NULL or the reason to reject it, with *sqlstate (set before to 22P02), and with *column if
	 * it is one column's. Raises nothing. An envelope may set the record's headers.
	 */
	const char *(*parse)(struct Decoder *decoder, StreamRecord *record, int row, const char **column, int *sqlstate);

	/* Of a stream with the option header: whether the record names the columns and is none. May be NULL. */
	bool (*is_header)(const StreamConfig *config, const StreamRecord *record);

	/* The text of a record that a column takes, palloc'd; NULL: there is none. Where the format names fields, NULL. */
	char *(*text_of)(const StreamConfig *config, const StreamColumn *column, const StreamRecord *record);

	/* The way back, for rows that are put into the stream's source (decode/write.h). May be NULL: it has none. */
	bool (*write)(const struct PayloadWriter *writer, StringInfo to);
} FormatOps;

extern const FormatOps streamext_json_format;
extern const FormatOps streamext_csv_format;
extern const FormatOps streamext_text_format;
extern const FormatOps streamext_raw_format;
extern const FormatOps streamext_flume_format;
extern const FormatOps streamext_row_format;

/* Those that the option format names, the default first; NULL ends them. */
extern const FormatOps *const streamext_formats[];

/* The values of the option datestyle by PostgreSQL's DateOrder; NULL ends them. */
extern const char *const streamext_datestyles[];

/* Options that payloads of every format have. */
extern const OptionSpec streamext_format_options[];

/* The one that a table's options name. */
extern const FormatOps *streamext_format(const ConnectorOps *connector, List *options);

/* What a table's options mean together, of all formats; raises. */
extern void streamext_format_check_options(const ConnectorOps *connector, List *options);

#endif /* STREAMEXT_FORMAT_H */
