/*
 * decode/csv.h
 *		One line of CSV in, its fields out: quoting as COPY ... (FORMAT csv) has it.
 */
#ifndef STREAMEXT_DECODER_CSV_H
#define STREAMEXT_DECODER_CSV_H

#include "base/streamext.h"

#define STREAMEXT_MAX_CSV_FIELD 9999

/* COPY's options of the same names. */
typedef struct CsvDialect
{
	char  delimiter;
	char  quote;
	char  escape;
	char *null;
} CsvDialect;

typedef struct CsvField
{
	const char *s; /* unquoted, not NUL-terminated; in the payload, or good until the next parse */
	uint32		size;
	bool		isnull;
} CsvField;

typedef struct CsvParser CsvParser;

/* In the current memory context. The dialect is kept by reference. */
extern CsvParser *streamext_csv_create(const CsvDialect *dialect);

/*
 * Fills fields[0 .. Min(wanted, *count)) from a payload, *count being the number of fields it has. NULL, or why it is not one
 * line of CSV (static text), with *sqlstate. The whole payload is checked, whatever is wanted.
 */
extern const char *streamext_csv_parse(CsvParser *parser, const char *payload, Size size, CsvField *fields, int wanted,
									   int *count, int *sqlstate);

/* The number of a field, from 1, that a column's option path means; 0: it is none. */
extern int streamext_csv_path(const char *path);

#endif /* STREAMEXT_DECODER_CSV_H */
