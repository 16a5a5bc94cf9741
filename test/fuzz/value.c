/*
 * sources:
 *
 * Numbers and times by the fast paths. Numbers are what strtod and strtoll have; a time written down anew is the same time.
 */
#include "fuzz.h"

#include "base/number.h"
#include "decode/time.h"

static void
value_number(const char *text, size_t size)
{
	DecimalNumber number;
	double		  value, expected;

	if (!streamext_parse_decimal(text, size, &number))
		return;
	REQUIRE(strspn(text, "-0123456789.") == size);
	if (number.scale == 0)
		REQUIRE(streamext_decimal_int(&number) == strtoll(text, NULL, 10));
	expected = strtod(text, NULL);
	if (streamext_decimal_double(&number, &value))
		REQUIRE(memcmp(&value, &expected, sizeof(value)) == 0);
}

static void
value_time(const char *text, size_t size)
{
	TimestampTz t, again;
	int64		day, rest;
	int			year;
	char		written[64];

	if (!streamext_parse_time(text, (uint32) size, &t))
		return;
	REQUIRE(t > INT64CONST(-63113990400000000) && t < INT64CONST(252455702400000000)); /* 1 BC to 10000 */
	day = t / USECS_PER_DAY - (t % USECS_PER_DAY < 0);
	rest = t - day * USECS_PER_DAY;
	year = 2000 + (int) (day / 366) - (day < 0);
	while (date2j(year + 1, 1, 1) - POSTGRES_EPOCH_JDATE <= day)
		year++;
	while (date2j(year, 1, 1) - POSTGRES_EPOCH_JDATE > day)
		year--;
	for (int month = 12; month >= 1; month--)
	{
		int64 first = date2j(year, month, 1) - POSTGRES_EPOCH_JDATE;

		if (first > day)
			continue;
		sprintf(written, "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", year, month, (int) (day - first + 1),
				(int) (rest / USECS_PER_HOUR), (int) (rest / USECS_PER_MINUTE % 60), (int) (rest / USECS_PER_SEC % 60),
				(int) (rest % USECS_PER_SEC));
		break;
	}
	if (year >= 1 && year <= 9999)
		REQUIRE(streamext_parse_time(written, strlen(written), &again) && again == t);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput in = { data, size };
	char	 *text;

	server_start();
	text = fuzz_text(&in, size);
	value_number(text, strlen(text));
	value_time(text, strlen(text));
	text = memcpy(palloc(size), data, size); /* no NUL behind it */
	{
		DecimalNumber number;
		TimestampTz	  t;

		(void) streamext_parse_decimal(text, size, &number);
		(void) streamext_parse_time(text, (uint32) size, &t);
	}
	server_reset();
	return 0;
}
