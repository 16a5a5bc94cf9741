/*
 * decode/row_legacy.c
 *		Rows of versions before 1.1: the hash, and the check that stands in for a layout.
 *
 * A hash that is right proves nothing, so nothing in the tuple is trusted: lengths are held against its end before they are used, and
 * only types are let through of which any bytes that pass here are a value. Those are numbers, times, texts and the like, domains and enums; not what has
 * a structure of its own (arrays, composites, ranges, jsonb ...).
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "datatype/timestamp.h"
#include "mb/pg_wchar.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "decode/row_legacy.h"

uint32
streamext_row_legacy_hash(TupleDesc desc)
{
	uint32 hash = hash_bytes_uint32(0);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		hash = hash_combine(hash, hash_bytes_uint32(att->attnum));
		hash = hash_combine(hash, hash_bytes_uint32(att->atttypid));
	}
	return hash;
}

/* Header, weight and digits of base 10,000, as numeric.c lays them out. */
static bool
legacy_numeric(const char *data, Size size)
{
	uint16 header;
	int16  digit;
	Size   at;

	if (size < sizeof(header) || size % sizeof(digit) != 0)
		return false;
	memcpy(&header, data, sizeof(header));
	if ((header & 0xC000) == 0xC000)
		return size == sizeof(header); /* NaN, infinite */
	at = (header & 0x8000) != 0 ? 2 : 4;
	if (size < at)
		return false;
	for (; at < size; at += sizeof(digit))
	{
		memcpy(&digit, data + at, sizeof(digit));
		if (digit < 0 || digit >= 10000)
			return false;
	}
	return true;
}

static bool
legacy_varlena(Oid type, const char *data, Size size)
{
	switch (type)
	{
		case BYTEAOID:
			return true;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
		case JSONOID:
			return memchr(data, '\0', size) == NULL && pg_verify_mbstr(GetDatabaseEncoding(), data, size, true);
		case NUMERICOID:
			return legacy_numeric(data, size);
		default:
			return false;
	}
}

static bool
legacy_fixed(Oid type, const char *data)
{
	int64 time;
	Oid	  oid;

	switch (type)
	{
		case BOOLOID:
			return *data == 0 || *data == 1;
		case TIMEOID:
			memcpy(&time, data, sizeof(time));
			return time >= 0 && time <= USECS_PER_DAY;
		case CHAROID:
		case INT2OID:
		case INT4OID:
		case INT8OID:
		case FLOAT4OID:
		case FLOAT8OID:
		case OIDOID:
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case INTERVALOID:
		case UUIDOID:
		case MACADDROID:
		case MACADDR8OID:
			return true;
		default:
			memcpy(&oid, data, sizeof(oid));
			return type_is_enum(type) && SearchSysCacheExists1(ENUMOID, ObjectIdGetDatum(oid));
	}
}

/* The value at *offset of the tuple's data, which ends at `end`; *offset moves behind it. */
static bool
legacy_value(const char *data, Size end, Form_pg_attribute att, Size *offset)
{
	Oid type = getBaseType(att->atttypid);

	if (att->attlen > 0)
	{
		*offset = att_align_nominal(*offset, att->attalign);
		if (*offset > end || end - *offset < (Size) att->attlen || !legacy_fixed(type, data + *offset))
			return false;
		*offset += att->attlen;
		return true;
	}
	if (att->attlen != -1 || *offset >= end)
		return false;
	*offset = att_align_pointer(*offset, att->attalign, -1, data + *offset);
	if (*offset >= end || VARATT_IS_1B_E(data + *offset))
		return false;
	/* a header of four bytes is always aligned; zeros before it would have moved *offset */
	if (!VARATT_IS_1B(data + *offset) &&
		(*offset != att_align_nominal(*offset, att->attalign) || end - *offset < VARHDRSZ ||
		 !VARATT_IS_4B_U(data + *offset) || VARSIZE_4B(data + *offset) < VARHDRSZ))
		return false;
	if (VARSIZE_ANY(data + *offset) > end - *offset ||
		!legacy_varlena(type, VARDATA_ANY(data + *offset), VARSIZE_ANY_EXHDR(data + *offset)))
		return false;
	*offset += VARSIZE_ANY(data + *offset);
	return true;
}

bool
streamext_row_legacy_check(HeapTuple tuple, TupleDesc desc)
{
	HeapTupleHeader header = tuple->t_data;
	int				natts = HeapTupleHeaderGetNatts(header);
	Size			bitmap = HeapTupleHasNulls(tuple) ? BITMAPLEN(natts) : 0;
	Size			offset = 0;

	if (natts > desc->natts || header->t_hoff != MAXALIGN(header->t_hoff) || header->t_hoff > tuple->t_len ||
		header->t_hoff < SizeofHeapTupleHeader + bitmap || HeapTupleHasExternal(tuple))
		return false;
	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (HeapTupleHasNulls(tuple) && att_isnull(i, header->t_bits))
			continue;
		if (att->attisdropped ||
			!legacy_value((char *) header + header->t_hoff, tuple->t_len - header->t_hoff, att, &offset))
			return false;
	}
	return true;
}
