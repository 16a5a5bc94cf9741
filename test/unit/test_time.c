#include "postgres.h"

#include "decode/time.h"
#include "unit.h"

static bool
time_is(const char *text, int64 expected)
{
	TimestampTz value;

	return streamext_parse_time(text, strlen(text), &value) && value == expected;
}

void
test_time(void)
{
	const char *none[] = { "",
						   "2000-01-01",
						   "2000-02-30 00:00:00",
						   "2001-02-29T00:00:00",
						   "0000-01-01 00:00:00",
						   "2000-01-01 24:00:00",
						   "2000-01-01 00:60:00",
						   "2000-01-01 00:00:60",
						   "2000-01-01 00:00:00.",
						   "2000-01-01 00:00:00.1234567",
						   "2000-01-01 00:00:00+1",
						   "2000-01-01 00:00:00+15",
						   "2000-01-01 00:00:00+01:60",
						   "2000-01-01 00:00:00Zx",
						   "2000-01-01x00:00:00",
						   "2000-13-01 00:00:00",
						   "-001-01-01 00:00:00" };
	TimestampTz value;

	CHECK(time_is("2000-01-01 00:00:00", 0) && time_is("2000-01-01T00:00:00Z", 0));
	CHECK(time_is("2000-01-01T00:00:00.000001", 1) && time_is("1999-12-31 23:59:59.9", -100000));
	CHECK(time_is("2000-01-01 05:30:00+05:30", 0) && time_is("2000-01-01 05:30:00+0530", 0) &&
		  time_is("1999-12-31 19:00:00-05", 0));
	CHECK(time_is("2024-02-29 12:00:00", INT64CONST(762523200000000)));
	CHECK(time_is("1970-01-01 00:00:00", INT64CONST(-946684800000000)));
	for (int i = 0; i < lengthof(none); i++)
		CHECK(!streamext_parse_time(none[i], strlen(none[i]), &value));
}
