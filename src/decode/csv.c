/*
 * decode/csv.c
 *		CSV payloads. A record is one line, and a line of COPY ... (FORMAT csv) and a record with the same bytes have the same
 *		fields: a quote may begin and end anywhere in a field, the escape character counts only inside quotes and only
 *		before a quote or itself, NULL is what stands without any quote and equals the dialect's null.
 *
 * What differs is what makes a file out of lines: here one newline (\n, \r\n or \r) may end the payload, more lines are
 * malformed, and \. is a value like any other.
 */
#include "base/streamext.h"

#include "mb/pg_wchar.h"

#include "decode/csv.h"

struct CsvParser
{
	const CsvDialect *dialect;
	Size			  null_size;
	MemoryContext	  cxt;
	char			 *buffer; /* fields that had to be unquoted; a payload's have room in it */
	Size			  capacity;
	char			 *at;			/* in buffer */
	bool			  special[256]; /* ends a run of ordinary bytes outside quotes */
};

CsvParser *
streamext_csv_create(const CsvDialect *dialect)
{
	CsvParser *parser = palloc0(sizeof(CsvParser));

	parser->dialect = dialect;
	parser->null_size = strlen(dialect->null);
	parser->cxt = CurrentMemoryContext;
	parser->special[(unsigned char) dialect->delimiter] = true;
	parser->special[(unsigned char) dialect->quote] = true;
	parser->special['\n'] = true;
	parser->special['\r'] = true;
	return parser;
}

int
streamext_csv_path(const char *path)
{
	Size size = strlen(path);

	return size >= 1 && size <= 4 && strspn(path, "0123456789") == size ? atoi(path) : 0;
}

/* Copies what is in the quotes that open at p. Returns the byte behind the closing one, NULL if there is none. */
static const char *
csv_unquote(CsvParser *parser, const char *p, const char *end)
{
	const char quote = parser->dialect->quote;
	const char escape = parser->dialect->escape;

	for (p++; p < end; p++)
	{
		if (*p == escape && p + 1 < end && (p[1] == escape || p[1] == quote))
			p++;
		else if (*p == quote)
			return p + 1;
		*parser->at++ = *p;
	}
	return NULL;
}

/* A field that begins at start and has its first quote at p. Returns where it ends, NULL if a quote is not closed. */
static const char *
csv_quoted_field(CsvParser *parser, const char *start, const char *p, const char *end, CsvField *field)
{
	const CsvDialect *dialect = parser->dialect;
	char			 *copy = parser->at;

	field->isnull = false;
	if (p == start)
	{
		const char *stop = p + 1;

		/* mostly the quotes are around it and nothing is escaped */
		while (stop < end && *stop != dialect->quote && *stop != dialect->escape)
			stop++;
		if (stop < end && *stop == dialect->quote &&
			(stop + 1 == end || (parser->special[(unsigned char) stop[1]] && stop[1] != dialect->quote)))
		{
			field->s = p + 1;
			field->size = stop - (p + 1);
			return stop + 1;
		}
	}

	memcpy(parser->at, start, p - start);
	parser->at += p - start;
	while (p < end && (*p == dialect->quote || !parser->special[(unsigned char) *p]))
	{
		if (*p != dialect->quote)
			*parser->at++ = *p++;
		else if ((p = csv_unquote(parser, p, end)) == NULL)
			return NULL;
	}
	field->s = copy;
	field->size = parser->at - copy;
	return p;
}

const char *
streamext_csv_parse(CsvParser *parser, const char *payload, Size size, CsvField *fields, int wanted, int *count,
					int *sqlstate)
{
	const CsvDialect *dialect = parser->dialect;
	const char		 *end = payload + size;
	const char		 *p = payload;
	CsvField		  ignored;
	int				  n = 0;

	*sqlstate = ERRCODE_CHARACTER_NOT_IN_REPERTOIRE;
	if (pg_encoding_verifymbstr(PG_UTF8, payload, size) != size || memchr(payload, '\0', size) != NULL)
		return "not valid UTF-8, or it holds a NUL character";

	*sqlstate = ERRCODE_BAD_COPY_FILE_FORMAT;
	if (size > parser->capacity)
	{
		if (parser->buffer != NULL)
			pfree(parser->buffer);
		parser->buffer = NULL;
		parser->capacity = 0;
		parser->buffer = MemoryContextAlloc(parser->cxt, size * 2);
		parser->capacity = size * 2;
	}
	parser->at = parser->buffer;

	for (;; p++)
	{
		CsvField   *field = n < wanted ? &fields[n] : &ignored;
		const char *start = p;

		while (p < end && !parser->special[(unsigned char) *p])
			p++;
		if (p < end && *p == dialect->quote)
		{
			p = csv_quoted_field(parser, start, p, end, field);
			if (p == NULL)
				return "a quoted field is not closed";
		}
		else
		{
			field->s = start;
			field->size = p - start;
			field->isnull = field->size == parser->null_size && memcmp(start, dialect->null, parser->null_size) == 0;
		}
		n++;
		if (p == end || *p != dialect->delimiter)
			break;
	}

	if (end - p >= 2 && p[0] == '\r' && p[1] == '\n')
		p += 2;
	else if (p < end)
		p++;
	if (p < end)
		return "the payload has more than one line";
	*count = n;
	return NULL;
}
