/*
 * sources: decode/csv
 *
 * A line of CSV. What was found in it, written with every field in quotes, is found again.
 */
#include "fuzz.h"

#include "mb/pg_wchar.h"

#include "decode/csv.h"

#define FIELDS 16

static char *
csv_quoted(const CsvDialect *dialect, const CsvField *fields, int n, Size *size)
{
	char *line, *to;

	*size = n;
	for (int i = 0; i < n; i++)
		*size += 2 + 2 * fields[i].size;
	line = to = palloc(*size + 1);
	for (int i = 0; i < n; i++)
	{
		if (i > 0)
			*to++ = dialect->delimiter;
		if (fields[i].isnull)
		{
			to = stpcpy(to, dialect->null);
			continue;
		}
		*to++ = dialect->quote;
		for (uint32 at = 0; at < fields[i].size; at++)
		{
			if (fields[i].s[at] == dialect->quote || fields[i].s[at] == dialect->escape)
				*to++ = dialect->escape;
			*to++ = fields[i].s[at];
		}
		*to++ = dialect->quote;
	}
	*size = to - line;
	return line;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static CsvDialect dialects[] = { { ',', '"', '"', "" }, { '\t', '\'', '\\', "\\N" }, { ';', '"', '\\', "NULL" } };
	FuzzInput		  in = { data, size };
	CsvField		  fields[FIELDS], again[FIELDS];
	int				  count, count_again, sqlstate, n;
	const CsvDialect *dialect;
	CsvParser		 *parser;
	char			 *payload;
	Size			  payload_size;

	server_start();
	dialect = &dialects[fuzz_number(&in, lengthof(dialects))];
	parser = streamext_csv_create(dialect);
	payload_size = in.size;
	payload = fuzz_copy(&in, payload_size);
	if (streamext_csv_parse(parser, payload, payload_size, fields, FIELDS, &count, &sqlstate) == NULL)
	{
		REQUIRE(count > 0);
		n = Min(count, FIELDS);
		for (int i = 0; i < n; i++)
			REQUIRE(pg_encoding_verifymbstr(PG_UTF8, fields[i].s, fields[i].size) == fields[i].size);
		payload = csv_quoted(dialect, fields, n, &payload_size);
		REQUIRE(streamext_csv_parse(streamext_csv_create(dialect), payload, payload_size, again, FIELDS, &count_again,
									&sqlstate) == NULL);
		REQUIRE(count_again == n);
		for (int i = 0; i < n; i++)
		{
			REQUIRE(again[i].isnull == fields[i].isnull);
			REQUIRE(again[i].isnull ||
					(again[i].size == fields[i].size && memcmp(again[i].s, fields[i].s, fields[i].size) == 0));
		}
	}
	server_reset();
	return 0;
}
