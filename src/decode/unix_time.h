/*
 * decode/unix_time.h
 *		Numbers that count seconds, or parts of one, since 1970.
 */
#ifndef STREAMEXT_DECODE_UNIX_TIME_H
#define STREAMEXT_DECODE_UNIX_TIME_H

#include "base/streamext.h"

#include "common/int.h"

#define UNIX_TIME_DIGITS INT64CONST(100000000000000000) /* a mantissa below that takes one digit more */
#define UNIX_TIME_MAX_EXPONENT 1000

typedef enum UnixTime
{
	UNIX_TIME_GOOD,
	UNIX_TIME_NO_NUMBER,
	UNIX_TIME_OUT_OF_RANGE
} UnixTime;

/* A number's value is mantissa * 10 ^ exponent; digits beyond the 18th are dropped. False: it is none. */
static inline bool
streamext_parse_exponential(const char *s, const char *stop, int64 *mantissa, int *exponent)
{
	bool negative = s < stop && *s == '-';
	bool any = false, point = false;

	*mantissa = 0;
	*exponent = 0;
	if (s < stop && (*s == '-' || *s == '+'))
		s++;
	for (; s < stop && ((*s >= '0' && *s <= '9') || (*s == '.' && !point)); s++)
	{
		if (*s == '.')
		{
			point = true;
			continue;
		}
		any = true;
		if (*mantissa < UNIX_TIME_DIGITS)
		{
			*mantissa = *mantissa * 10 + (*s - '0');
			*exponent -= point;
		}
		else
			*exponent += !point;
	}
	if (negative)
		*mantissa = -*mantissa;
	if (any && s < stop && (*s == 'e' || *s == 'E'))
	{
		int	 power = 0;
		bool minus;

		s++;
		minus = s < stop && *s == '-';
		if (s < stop && (*s == '-' || *s == '+'))
			s++;
		any = s < stop;
		for (; s < stop && *s >= '0' && *s <= '9'; s++)
			power = Min(power * 10 + (*s - '0'), UNIX_TIME_MAX_EXPONENT);
		*exponent += minus ? -power : power;
	}
	return any && s == stop;
}

/*
 * The number's time in PostgreSQL's microseconds; what it counts are parts of a second with so many digits: 0, 3, 6 or 9. What is finer
 * than a microsecond is rounded to the nearest, halves away from zero.
 */
static inline UnixTime
streamext_parse_unix_time(const char *s, Size size, int digits, int64 *result)
{
	const char *stop = s + size;
	int64		value;
	int			exponent;

	while (s < stop && *s == ' ')
		s++;
	while (s < stop && stop[-1] == ' ')
		stop--;
	if (!streamext_parse_exponential(s, stop, &value, &exponent))
		return UNIX_TIME_NO_NUMBER;
	for (exponent += 6 - digits; exponent > 0 && value != 0; exponent--)
		if (pg_mul_s64_overflow(value, 10, &value))
			return UNIX_TIME_OUT_OF_RANGE;
	if (exponent < 0)
	{
		for (; exponent < -1 && value != 0; exponent++)
			value /= 10;
		value = (value + (value < 0 ? -5 : 5)) / 10;
	}
	if (pg_sub_s64_overflow(value, (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY, &value) ||
		!IS_VALID_TIMESTAMP(value))
		return UNIX_TIME_OUT_OF_RANGE;
	*result = value;
	return UNIX_TIME_GOOD;
}

#endif /* STREAMEXT_DECODE_UNIX_TIME_H */
