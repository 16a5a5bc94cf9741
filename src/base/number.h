/*
 * base/number.h
 *		Plain decimal numbers by a fast path, for the JSON and the CSV decoder; what it does not know goes to the JSON parser or
 *		the type's input function. Plain C and C++.
 */
#ifndef STREAMEXT_DECODER_NUMBER_H
#define STREAMEXT_DECODER_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct DecimalNumber
{
	uint64_t mantissa; /* all digits */
	int		 scale;	   /* how many of them are behind the point; 0: there is no point */
	bool	 negative;
} DecimalNumber;

/* -?digits[.digits] of at most 16 characters behind the sign. False: anything else, right or wrong. */
static inline bool
streamext_parse_decimal(const char *s, size_t size, DecimalNumber *number)
{
	const char *stop = s + size;
	const char *point = stop;

	number->negative = size > 0 && *s == '-';
	s += number->negative;
	if (s == stop || stop - s > 16)
		return false;
	number->mantissa = 0;
	for (const char *p = s; p < stop; p++)
	{
		unsigned digit = (unsigned) (unsigned char) *p - '0';

		if (digit <= 9)
			number->mantissa = number->mantissa * 10 + digit;
		else if (*p == '.' && point == stop && p > s && p + 1 < stop)
			point = p;
		else
			return false;
	}
	number->scale = point < stop ? (int) (stop - point - 1) : 0;
	return true;
}

/*
 * The double next to the number, as strtod has it: what a double holds exactly, divided once by an exact power of ten, is rounded
 * right. False: too many digits for that.
 */
static inline bool
streamext_decimal_double(const DecimalNumber *number, double *result)
{
	static const double powers[] = { 1e0, 1e1, 1e2,	 1e3,  1e4,	 1e5,  1e6,	 1e7,
									 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15 };
	double				d = (double) number->mantissa;

	if (number->mantissa > (UINT64_C(1) << 53))
		return false;
	if (number->scale > 0)
		d /= powers[number->scale];
	*result = number->negative ? -d : d;
	return true;
}

static inline int64_t
streamext_decimal_int(const DecimalNumber *number)
{
	return number->negative ? -(int64_t) number->mantissa : (int64_t) number->mantissa;
}

#endif /* STREAMEXT_DECODER_NUMBER_H */
