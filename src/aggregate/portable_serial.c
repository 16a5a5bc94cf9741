/*
 * aggregate/portable_serial.c
 *		Serialised internal states that come from anybody. PostgreSQL's deserialise functions are made for bytes of its own parallel workers: those of
 *		numeric take any weight and any digit, and count an address from them. So what they are given is looked at before.
 */
#include "base/compat.h"

#include "port/pg_bswap.h"
#include "utils/fmgroids.h"

#include "aggregate/portable.h"

/* Beyond what sums of squares of the largest and finest numerics have. */
#define SERIAL_MAX_WEIGHT 0x20000
#define SERIAL_MAX_SCALE 0x20000
#define SERIAL_NEGATIVE 0x4000
#define SERIAL_BASE 10000

static int32
serial_int32(const char *bytes)
{
	uint32 number;

	memcpy(&number, bytes, sizeof(number));
	return (int32) pg_ntoh32(number);
}

/* The number that begins here (numericvar_serialize): its size, or -1 if it is none. */
static int64
serial_number(const char *bytes, int64 left)
{
	int32 digits, weight, sign, scale;

	if (left < 4 * (int64) sizeof(int32))
		return -1;
	digits = serial_int32(bytes);
	weight = serial_int32(bytes + 4);
	sign = serial_int32(bytes + 8);
	scale = serial_int32(bytes + 12);
	if (digits < 0 || digits > (left - 16) / (int64) sizeof(int16) || weight < -SERIAL_MAX_WEIGHT ||
		weight > SERIAL_MAX_WEIGHT || (sign != 0 && sign != SERIAL_NEGATIVE) || scale < 0 || scale > SERIAL_MAX_SCALE)
		return -1;
	for (int32 i = 0; i < digits; i++)
	{
		uint16 digit;

		memcpy(&digit, bytes + 16 + i * (Size) sizeof(digit), sizeof(digit));
		if (pg_ntoh16(digit) >= SERIAL_BASE)
			return -1;
	}
	return 16 + digits * (int64) sizeof(int16);
}

void
streamext_portable_check_serial(Oid deserialfn, const char *bytes, int32 size)
{
	int64 at = sizeof(int64); /* behind how many values there were */
	int	  numbers;

	switch (deserialfn)
	{
		case F_NUMERIC_AVG_DESERIALIZE:
		case F_INT8_AVG_DESERIALIZE:
			numbers = 1;
			break;
		case F_NUMERIC_DESERIALIZE:
		case F_NUMERIC_POLY_DESERIALIZE:
			numbers = 2;
			break;
		default:
			return;
	}
	for (int i = 0; i < numbers; i++)
	{
		int64 length = at > size ? -1 : serial_number(bytes + at, size - at);

		if (length < 0)
			streamext_portable_invalid("A number in it is none.");
		at += length;
	}
}
