/*
 * decode/readable.c
 *		Bytes of a record as a person can read them.
 */
#include "base/streamext.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "decode/readable.h"

PG_FUNCTION_INFO_V1(streamext_payload_text);

text *
streamext_readable(const char *bytes, Size size)
{
	StringInfoData text;
	const char	  *stop = bytes + size;

	initStringInfo(&text);
	while (bytes < stop)
	{
		int good = pg_encoding_verifymbstr(PG_UTF8, bytes, stop - bytes); /* stops at a NUL too */

		appendBinaryStringInfo(&text, bytes, good);
		bytes += good;
		if (bytes < stop)
			appendStringInfo(&text, "\\x%02x", (unsigned char) *bytes++);
	}
	return cstring_to_text_with_len(text.data, text.len);
}

Datum
streamext_payload_text(PG_FUNCTION_ARGS)
{
	bytea *payload = PG_GETARG_BYTEA_PP(0);

	PG_RETURN_TEXT_P(streamext_readable(VARDATA_ANY(payload), VARSIZE_ANY_EXHDR(payload)));
}
