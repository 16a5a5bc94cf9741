/*
 * decode/time.h
 *		ISO 8601 times by a fast path; what it does not know goes to timestamptz's input function.
 */
#ifndef STREAMEXT_DECODER_TIME_H
#define STREAMEXT_DECODER_TIME_H

#include "base/streamext.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

/* n digits as a number, -1 if they are not. */
static inline int
streamext_parse_digits(const char *s, int n)
{
	int value = 0;

	for (int i = 0; i < n; i++)
	{
		unsigned digit = (unsigned char) s[i] - '0';

		if (digit > 9)
			return -1;
		value = value * 10 + digit;
	}
	return value;
}

/*
 * YYYY-MM-DD[T ]HH:MM:SS[.f{1,6}][Z|(+|-)HH[[:]MM]] in the years 1 to 9999; without a zone UTC, and *zoned is false. False: anything
 * else, right or wrong.
 */
static inline bool
streamext_parse_zoned_time(const char *s, uint32 size, TimestampTz *result, bool *zoned)
{
	int	   year, month, day, hour, minute, second, usec = 0;
	int64  zone = 0;
	uint32 at = 19;

	if (size < 19 || size > 35 || s[4] != '-' || s[7] != '-' || (s[10] != 'T' && s[10] != ' ') || s[13] != ':' ||
		s[16] != ':')
		return false;
	year = streamext_parse_digits(s, 4);
	month = streamext_parse_digits(s + 5, 2);
	day = streamext_parse_digits(s + 8, 2);
	hour = streamext_parse_digits(s + 11, 2);
	minute = streamext_parse_digits(s + 14, 2);
	second = streamext_parse_digits(s + 17, 2);
	if (year < 1 || month < 1 || month > 12 || day < 1 || day > day_tab[isleap(year)][month - 1] || hour < 0 ||
		hour > 23 || minute < 0 || minute > 59 || second < 0 || second > 59)
		return false;

	if (at < size && s[at] == '.')
	{
		int scale = 100000;

		for (at++; at < size && s[at] >= '0' && s[at] <= '9'; at++, scale /= 10)
		{
			if (scale == 0)
				return false;
			usec += (s[at] - '0') * scale;
		}
		if (s[at - 1] == '.')
			return false;
	}
	*zoned = at < size;
	if (at < size && s[at] == 'Z')
		at++;
	else if (at < size && (s[at] == '+' || s[at] == '-'))
	{
		int sign = s[at] == '-' ? -1 : 1;
		int hours, minutes = 0;

		at++;
		if (size - at < 2 || (hours = streamext_parse_digits(s + at, 2)) < 0)
			return false;
		at += 2;
		if (at < size && s[at] == ':')
			at++;
		if (at < size)
		{
			if (size - at < 2 || (minutes = streamext_parse_digits(s + at, 2)) < 0)
				return false;
			at += 2;
		}
		if (hours > 14 || minutes > 59)
			return false;
		zone = sign * (hours * USECS_PER_HOUR + minutes * USECS_PER_MINUTE);
	}
	if (at != size)
		return false;

	*result = (date2j(year, month, day) - POSTGRES_EPOCH_JDATE) * USECS_PER_DAY + hour * USECS_PER_HOUR +
			  minute * USECS_PER_MINUTE + second * USECS_PER_SEC + usec - zone;
	return true;
}

/* The same; who does not ask has UTC for a time without a zone. */
static inline bool
streamext_parse_time(const char *s, uint32 size, TimestampTz *result)
{
	bool zoned;

	return streamext_parse_zoned_time(s, size, result, &zoned);
}

#endif /* STREAMEXT_DECODER_TIME_H */
