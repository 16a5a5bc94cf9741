#include "postgres.h"

#include "decode/unix_time.h"
#include "unit.h"

static bool
unix_is(const char *text, int digits, int64 since_1970)
{
	int64 value;

	return streamext_parse_unix_time(text, strlen(text), digits, &value) == UNIX_TIME_GOOD &&
		   value + (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY == since_1970;
}

void
test_unix_time(void)
{
	const char *none[] = { "", " ", "-", "+", ".", "e5", "1e", "1e+", "1.2.3", "0x1", "1 2", "nan", "1_0", "--1" };
	const char *far[] = { "1e13", "9e999999999", "-1e13", "99999999999999999999" };
	int64		value;

	CHECK(unix_is("0", 0, 0) && unix_is("-0.0", 0, 0) && unix_is(" 1 ", 0, 1000000) && unix_is("+1.", 0, 1000000));
	CHECK(unix_is("1714561231.123456", 0, INT64CONST(1714561231123456)));
	CHECK(unix_is("1714561231123", 3, INT64CONST(1714561231123000)));
	CHECK(unix_is("1714561231123456", 6, INT64CONST(1714561231123456)));
	CHECK(unix_is("1714561231123456789", 9, INT64CONST(1714561231123457)));
	CHECK(unix_is("1.714561231e9", 0, INT64CONST(1714561231000000)) &&
		  unix_is("17145612310E-1", 0, INT64CONST(1714561231000000)));
	CHECK(unix_is("-1.5", 6, -2) && unix_is("1.5", 6, 2) && unix_is("1.4999999", 6, 1) && unix_is("499", 9, 0));
	CHECK(unix_is("0e999999999999", 0, 0) && unix_is("1e-999999999999", 0, 0));
	CHECK(unix_is("1714561231.12345600000000000000000000000000000000", 0, INT64CONST(1714561231123456)));
	for (int i = 0; i < lengthof(none); i++)
		CHECK(streamext_parse_unix_time(none[i], strlen(none[i]), 0, &value) == UNIX_TIME_NO_NUMBER);
	for (int i = 0; i < lengthof(far); i++)
		CHECK(streamext_parse_unix_time(far[i], strlen(far[i]), 0, &value) == UNIX_TIME_OUT_OF_RANGE);
}
