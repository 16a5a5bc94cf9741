#include "postgres.h"

#include "decode/csv.h"
#include "unit.h"

static CsvDialect plain = { ',', '"', '"', "" };

/* The fields as `a|b`, a NULL as ~; or why the payload is malformed. */
static const char *
csv(const CsvDialect *dialect, const char *payload)
{
	static char text[1024];
	CsvField	fields[8];
	int			count, sqlstate;
	const char *error = streamext_csv_parse(streamext_csv_create(dialect), payload, strlen(payload), fields,
											lengthof(fields), &count, &sqlstate);

	if (error != NULL)
		return error;
	text[0] = '\0';
	for (int i = 0; i < Min(count, (int) lengthof(fields)); i++)
	{
		strcat(text, i > 0 ? "|" : "");
		strncat(text, fields[i].isnull ? "~" : fields[i].s, fields[i].isnull ? 1 : fields[i].size);
	}
	return text;
}

void
test_csv(void)
{
	CsvDialect odd = { '\t', '\'', '\\', "\\N" };

	CHECK(strcmp(csv(&plain, "a,b,c"), "a|b|c") == 0);
	CHECK(strcmp(csv(&plain, ""), "~") == 0);
	CHECK(strcmp(csv(&plain, "\"\""), "") == 0);
	CHECK(strcmp(csv(&plain, "a,,\"b\"\r\n"), "a|~|b") == 0);
	CHECK(strcmp(csv(&plain, "a\"b\"\"c\"d,e"), "ab\"cd|e") == 0);
	CHECK(strcmp(csv(&plain, "\"a\nb\",c\n"), "a\nb|c") == 0);
	CHECK(strcmp(csv(&plain, "\"a"), "a quoted field is not closed") == 0);
	CHECK(strcmp(csv(&plain, "a\nb"), "the payload has more than one line") == 0);
	CHECK(strcmp(csv(&plain, "\xff"), "not valid UTF-8, or it holds a NUL character") == 0);
	CHECK(strcmp(csv(&odd, "\\N\t'\\N'\t'a\\'b'"), "~|\\N|a'b") == 0);
	CHECK(streamext_csv_path("12") == 12 && streamext_csv_path("0") == 0 && streamext_csv_path("99999") == 0);
	CHECK(streamext_csv_path("1a") == 0 && streamext_csv_path("") == 0 && streamext_csv_path("-1") == 0);
}
