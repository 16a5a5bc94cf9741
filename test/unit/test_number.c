#include "postgres.h"

#include "base/number.h"
#include "unit.h"

static bool
number_is(const char *text, double expected)
{
	DecimalNumber number;
	double		  value;

	return streamext_parse_decimal(text, strlen(text), &number) && streamext_decimal_double(&number, &value) &&
		   memcmp(&value, &expected, sizeof(value)) == 0;
}

void
test_number(void)
{
	const char	 *none[] = { "", "-", ".", "1.", ".5", "1e3", "+1", "1.2.3", "12345678901234567", " 1", "0x1", "-.1" };
	DecimalNumber number;

	CHECK(number_is("0", 0.0) && number_is("-0", -0.0) && number_is("1.5", 1.5) && number_is("-12.25", -12.25));
	CHECK(number_is("0.1", 0.1) && number_is("123456.789012345", 123456.789012345));
	CHECK(number_is("9007199254740992", 9007199254740992.0) && !number_is("9007199254740993", 9007199254740993.0));
	CHECK(streamext_parse_decimal("-42", 3, &number) && streamext_decimal_int(&number) == -42);
	for (int i = 0; i < lengthof(none); i++)
		CHECK(!streamext_parse_decimal(none[i], strlen(none[i]), &number));
}
