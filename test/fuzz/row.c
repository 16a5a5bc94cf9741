/*
 * sources: decode/row decode/row_legacy
 * flags: -Wno-unused-function
 *
 * Rows as they are stored. Without a layout (versions before 1.1) and with the right hash: refused, or every value lies within the row. With a
 * layout: whatever columns came, went and changed their type since, each value is that of its column, or it is refused. Bytes of a dead
 * letter: the record is within them. Layouts of any kind: what one can be read as has its values at the same places.
 */
#include "fuzz.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "nodes/execnodes.h"
#include "utils/lsyscache.h"

#include "decode/format.h"
#include "decode/row.h"
#include "decode/row_legacy.h"

/* Layouts are kept for one input only; what they are made of here is PostgreSQL's own. */
#define streamext_layout_intern layout_intern_real
#include "base/layout.c"
#undef streamext_layout_intern

extern const RowLayout *streamext_layout_intern(const void *bytes, Size size);

static const RowLayout *interned[8];
static int				ninterned;
static char			   *stack_base;

const RowLayout *
streamext_layout_intern(const void *bytes, Size size)
{
	if (!layout_is_sane(bytes, size))
		return NULL;
	size = ((const RowLayout *) bytes)->size;
	for (int i = 0; i < ninterned; i++)
		if (interned[i]->size == size && memcmp(interned[i], bytes, size) == 0)
			return interned[i];
	REQUIRE(ninterned < lengthof(interned));
	return interned[ninterned++] = memcpy(palloc(size), bytes, size);
}

#include "durable/letter_record.c"

#define COLUMNS 12

static const struct
{
	Oid	  type;
	int16 len;
	bool  byval;
	char  align;
} row_types[] = { { BOOLOID, 1, true, 'c' },	   { INT2OID, 2, true, 's' },	   { INT4OID, 4, true, 'i' },
				  { INT8OID, 8, true, 'd' },	   { FLOAT8OID, 8, true, 'd' },	   { UUIDOID, 16, false, 'c' },
				  { INTERVALOID, 16, false, 'd' }, { MACADDROID, 6, false, 'i' },  { TIMEOID, 8, true, 'd' },
				  { TEXTOID, -1, false, 'i' },	   { NUMERICOID, -1, false, 'i' }, { BYTEAOID, -1, false, 'i' },
				  { JSONBOID, -1, false, 'i' },	   { CHAROID, 1, true, 'c' } };

static void
row_column(TupleDesc desc, int i, int type)
{
	Form_pg_attribute att = TupleDescAttr(desc, i);

	memset(att, 0, ATTRIBUTE_FIXED_PART_SIZE);
	att->attnum = i + 1;
	att->atttypid = row_types[type].type;
	att->attlen = row_types[type].len;
	att->attbyval = row_types[type].byval;
	att->attalign = row_types[type].align;
	att->attstorage = TYPSTORAGE_PLAIN;
	att->atttypmod = -1;
	att->attcacheoff = -1;
}

/* As PostgreSQL drops a column: its type is gone, its length and alignment stay. */
static void
row_drop(TupleDesc desc, int i)
{
	TupleDescAttr(desc, i)->attisdropped = true;
	TupleDescAttr(desc, i)->atttypid = InvalidOid;
}

static TupleDesc
row_desc(FuzzInput *in)
{
	TupleDesc desc = CreateTemplateTupleDesc(1 + fuzz_number(in, COLUMNS));

	for (int i = 0; i < desc->natts; i++)
		row_column(desc, i, fuzz_number(in, lengthof(row_types)));
	return desc;
}

/* ---- without a layout ---- */

static void
row_legacy(FuzzInput *in)
{
	TupleDesc	 desc = row_desc(in);
	Size		 size = SizeofMinimalTupleHeader + fuzz_size(in, 1024);
	char		*payload = palloc0(size), *copy = palloc(size);
	StreamConfig config = { .desc = desc };
	StreamRecord record = { .payload = payload,
							.payload_size = size,
							.row_type_hash = streamext_row_legacy_hash(desc) };
	Datum		*values = palloc(sizeof(Datum) * desc->natts);
	bool		*nulls = palloc(sizeof(bool) * desc->natts);
	int			 sqlstate;

	if (fuzz_number(in, 8) == 0)
		row_drop(desc, fuzz_number(in, desc->natts));
	fuzz_bytes(in, payload, size);
	if (fuzz_number(in, 16) != 0)
		((MinimalTuple) payload)->t_len = size;
	if (streamext_row_decode(streamext_row_decoder(&config), &record, copy, values, nulls, &sqlstate) != NULL)
		return;
	for (int i = 0; i < desc->natts; i++)
		if (!nulls[i] && TupleDescAttr(desc, i)->attlen == -1)
		{
			char *value = DatumGetPointer(values[i]);

			REQUIRE(value >= copy && value < copy + size && VARSIZE_ANY(value) <= (Size) (copy + size - value));
		}
}

/* ---- with a layout ---- */

/* A row of desc, as heap_form_minimal_tuple lays it out; what its values are is said by their numbers and `in`. */
static char *
row_form(FuzzInput *in, TupleDesc desc, Datum *values, bool *nulls, Size *size)
{
	Size		 bitmap = MAXALIGN(SizeofHeapTupleHeader + BITMAPLEN(desc->natts)) - MINIMAL_TUPLE_OFFSET, at = bitmap;
	char		*bytes = palloc0(8192);
	MinimalTuple tuple = (MinimalTuple) bytes;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		Size			  length = att->attlen;

		nulls[i] = fuzz_number(in, 4) == 0;
		if (nulls[i])
			continue;
		tuple->t_bits[i / 8] |= 1 << i % 8;
		if (att->attlen == -1 && fuzz_number(in, 2) == 0)
		{
			length = 1 + fuzz_number(in, 100);
			SET_VARSIZE_1B(bytes + at, length);
			fuzz_bytes(in, bytes + at + 1, length - 1);
		}
		else
		{
			at = att_align_nominal(at, att->attalign);
			length = att->attlen == -1 ? VARHDRSZ + fuzz_number(in, 400) : length;
			fuzz_bytes(in, bytes + at, length);
			if (att->attlen == -1)
				SET_VARSIZE(bytes + at, length);
			if (att->attlen == 1)
				bytes[at] &= 1;
		}
		values[i] = att->attbyval ? fetch_att(bytes + at, true, att->attlen)
								  : PointerGetDatum(memcpy(palloc(length), bytes + at, length));
		at += length;
	}
	tuple->t_len = *size = at;
	tuple->t_infomask = HEAP_HASNULL;
	tuple->t_infomask2 = desc->natts;
	tuple->t_hoff = bitmap + MINIMAL_TUPLE_OFFSET;
	return bytes;
}

/* The columns as they are now: some more, some dropped, some of another type. */
static TupleDesc
row_altered(FuzzInput *in, TupleDesc then)
{
	TupleDesc now = CreateTemplateTupleDesc(then->natts + fuzz_number(in, 3));

	for (int i = 0; i < now->natts; i++)
		if (i < then->natts)
			memcpy(TupleDescAttr(now, i), TupleDescAttr(then, i), ATTRIBUTE_FIXED_PART_SIZE);
		else
			row_column(now, i, fuzz_number(in, lengthof(row_types)));
	for (int n = fuzz_number(in, 3); n > 0; n--)
	{
		int i = fuzz_number(in, now->natts);

		if (fuzz_number(in, 2) == 0)
			row_drop(now, i);
		else if (!TupleDescAttr(now, i)->attisdropped)
			row_column(now, i, fuzz_number(in, lengthof(row_types)));
	}
	return now;
}

static bool
row_same(Form_pg_attribute att, Datum a, Datum b)
{
	if (att->attbyval)
		return a == b;
	return memcmp(DatumGetPointer(a), DatumGetPointer(b),
				  att->attlen > 0 ? att->attlen : VARSIZE_ANY(DatumGetPointer(a))) == 0;
}

static void
row_layout(FuzzInput *in)
{
	TupleDesc	 then = row_desc(in), now;
	Datum		 values[COLUMNS], got[COLUMNS + 2];
	bool		 nulls[COLUMNS], missing[COLUMNS + 2], refused = false;
	RowLayout	*layout;
	StreamConfig config;
	StreamRecord record = { 0 };
	RowDecoder	*decoder;
	Size		 size;
	volatile int sqlstate;
	const char *volatile reason = NULL;

	if (fuzz_number(in, 4) == 0)
		row_drop(then, fuzz_number(in, then->natts));
	layout = streamext_layout_make(then, false);
	record.layout = streamext_layout_intern(layout, layout->size);
	now = row_altered(in, then);
	config = (StreamConfig){ .desc = now };
	record.payload = row_form(in, then, values, nulls, &size);
	record.payload_size = fuzz_number(in, 32) == 0 ? fuzz_number(in, size) : size;
	record.payload = memcpy(palloc(record.payload_size), record.payload, record.payload_size);
	decoder = streamext_row_decoder(&config);
	(void) streamext_row_may_raise(decoder, &record);
	for (int i = 0; i < then->natts && i < now->natts; i++)
		refused = refused || (!TupleDescAttr(now, i)->attisdropped && !TupleDescAttr(then, i)->attisdropped &&
							  TupleDescAttr(now, i)->atttypid != TupleDescAttr(then, i)->atttypid && !nulls[i]);
	if (!SERVER_TRY(reason = streamext_row_decode(decoder, &record, palloc(record.payload_size), got, missing,
												  (int *) &sqlstate)))
	{
		REQUIRE(refused && streamext_row_may_raise(decoder, &record));
		return;
	}
	REQUIRE((reason != NULL) == (record.payload_size != size));
	if (reason != NULL)
		return;
	REQUIRE(!refused);
	for (int i = 0; i < now->natts; i++)
	{
		bool expected = i < then->natts && !nulls[i] && !TupleDescAttr(then, i)->attisdropped;

		if (TupleDescAttr(now, i)->attisdropped)
			continue;
		REQUIRE(missing[i] == !expected);
		REQUIRE(missing[i] || row_same(TupleDescAttr(now, i), values[i], got[i]));
	}
}

/* ---- a dead letter's bytes ---- */

static void
row_letter(FuzzInput *in)
{
	FormatOps	 format = { .rows = fuzz_number(in, 2) == 1 };
	uint32		 size = in->size;
	bytea		*bytes = palloc(VARHDRSZ + size);
	StreamRecord record = { 0 };

	SET_VARSIZE(bytes, VARHDRSZ + size);
	fuzz_bytes(in, VARDATA(bytes), size);
	if (!streamext_dead_letter_record(&record, &format, NULL, bytes))
		return;
	if (record.key != NULL)
		REQUIRE(record.key + record.key_size <= (char *) bytes + VARSIZE(bytes));
	if (record.payload != NULL)
		REQUIRE(record.payload + record.payload_size <= (char *) bytes + VARSIZE(bytes));
	if (record.headers != NULL)
		REQUIRE(strlen(record.headers) <= size);
	if (record.layout != NULL)
		REQUIRE(layout_is_sane(record.layout, record.layout->size));
}

/* ---- two layouts ---- */

static RowLayout *
row_any_layout(FuzzInput *in)
{
	int				 ntypes = 1 + fuzz_number(in, 5), natts = fuzz_number(in, 8);
	Size			 size = sizeof(RowLayout) + ntypes * sizeof(LayoutType) + natts * sizeof(LayoutAttribute);
	RowLayout		*layout = palloc0(size);
	LayoutType		*types = (LayoutType *) (layout + 1);
	LayoutAttribute *atts = (LayoutAttribute *) (types + ntypes);

	*layout = (RowLayout){ LAYOUT_MAGIC, size, ntypes, natts };
	for (int t = 0; t < ntypes; t++)
	{
		types[t].type = t == 0 ? 0 : FirstGenbkiObjectId + fuzz_number(in, 5);
		types[t].kind = t == 0 ? 'c' : "cabdr"[fuzz_number(in, 5)];
		types[t].inner = types[t].kind == 'c' ? 0 : FirstGenbkiObjectId - 1 + fuzz_number(in, 6);
		types[t].first = fuzz_number(in, natts + 1);
		types[t].natts = types[t].kind == 'c' ? fuzz_number(in, natts - types[t].first + 1) : 0;
		types[t].len = -1;
		types[t].align = "id"[fuzz_number(in, 2)];
	}
	for (int i = 0; i < natts; i++)
	{
		atts[i].dropped = fuzz_number(in, 4) == 0;
		atts[i].type = atts[i].dropped ? 0 : FirstGenbkiObjectId - 2 + fuzz_number(in, 7);
		atts[i].typmod = -1;
		atts[i].len = fuzz_number(in, 2) == 0 ? -1 : 4;
		atts[i].byval = atts[i].len == 4;
		atts[i].align = 'i';
	}
	if (fuzz_number(in, 8) == 0)
		fuzz_bytes(in, types, Min(size - sizeof(RowLayout), 64));
	return layout;
}

static void
row_layouts(FuzzInput *in)
{
	RowLayout *then = row_any_layout(in), *now = fuzz_number(in, 4) == 0 ? then : row_any_layout(in);

	if (!layout_is_sane(then, then->size) || !layout_is_sane(now, now->size))
		return;
	for (Oid type = FirstGenbkiObjectId; type < FirstGenbkiObjectId + 5; type++)
	{
		const LayoutType *a = streamext_layout_find(then, type), *b = streamext_layout_find(now, type);
		TupleDesc		  x, y;
		volatile bool	  reads = false;

		if (!SERVER_TRY(reads = streamext_layout_reads(then, now, type)) || !reads)
			continue;
		REQUIRE(a != NULL && b != NULL && a->kind == b->kind);
		if (a->kind != TYPTYPE_COMPOSITE)
			continue;
		x = streamext_layout_desc(then, a);
		y = streamext_layout_desc(now, b);
		REQUIRE(x->natts <= y->natts);
		for (int i = 0; i < x->natts; i++)
		{
			REQUIRE(TupleDescAttr(x, i)->attlen == TupleDescAttr(y, i)->attlen &&
					TupleDescAttr(x, i)->attalign == TupleDescAttr(y, i)->attalign);
			REQUIRE(TupleDescAttr(y, i)->attisdropped ||
					TupleDescAttr(x, i)->atttypid == TupleDescAttr(y, i)->atttypid);
		}
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	FuzzInput in = { data, size };

	server_start();
	ninterned = 0;
	stack_base = __builtin_frame_address(0);
	switch (fuzz_number(&in, 4))
	{
		case 0:
			row_legacy(&in);
			break;
		case 1:
			row_layout(&in);
			break;
		case 2:
			row_letter(&in);
			break;
		case 3:
			row_layouts(&in);
			break;
	}
	server_reset();
	return 0;
}

/* ---- the server's ---- */

TupleDesc
CreateTemplateTupleDesc(int natts)
{
	TupleDesc desc = palloc0(offsetof(struct TupleDescData, attrs) + natts * sizeof(FormData_pg_attribute));

	desc->natts = natts;
	desc->tdtypeid = RECORDOID;
	desc->tdtypmod = -1;
	return desc;
}

/* Without the server's short cuts. */
void
heap_deform_tuple(HeapTuple tuple, TupleDesc desc, Datum *values, bool *isnull)
{
	HeapTupleHeader header = tuple->t_data;
	int				natts = Min(HeapTupleHeaderGetNatts(header), desc->natts);
	char		   *data = (char *) header + header->t_hoff;
	Size			at = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		isnull[i] = i >= natts || (HeapTupleHasNulls(tuple) && att_isnull(i, header->t_bits));
		values[i] = (Datum) 0;
		if (isnull[i])
			continue;
		at = att_align_pointer(at, att->attalign, att->attlen, data + at);
		values[i] = fetch_att(data + at, att->attbyval, att->attlen);
		at = att_addlength_pointer(at, att->attlen, data + at);
	}
}

/* Of what points back to itself, which no server makes. */
void
check_stack_depth(void)
{
	if (stack_base - (char *) __builtin_frame_address(0) > 512 * 1024)
		elog(ERROR, "stack depth limit exceeded");
}

List *
lappend(List *list, void *datum)
{
	if (list == NIL)
	{
		list = palloc0(sizeof(List) + 64 * sizeof(ListCell));
		list->type = T_List;
		list->max_length = 64;
		list->elements = list->initial_elements;
	}
	REQUIRE(list->length < list->max_length);
	list->elements[list->length++].ptr_value = datum;
	return list;
}

uint32
hash_bytes_uint32(uint32 k)
{
	return k * 2654435761u;
}

Oid
getBaseType(Oid type)
{
	return type;
}

char
get_typtype(Oid type)
{
	return TYPTYPE_BASE;
}

bool
type_is_enum(Oid type)
{
	return false;
}

Oid
get_typcollation(Oid type)
{
	return InvalidOid;
}

bool
SearchSysCacheExists(int cache, Datum a, Datum b, Datum c, Datum d)
{
	return true;
}

void
CacheRegisterRelcacheCallback(RelcacheCallbackFunction function, Datum arg)
{
}

ExprContext *
CreateStandaloneExprContext(void)
{
	return palloc0(sizeof(ExprContext));
}

/* No type becomes another. */
Node *
coerce_to_target_type(struct ParseState *state, Node *expr, Oid from, Oid to, int32 typmod, CoercionContext context,
					  CoercionForm form, int location)
{
	return NULL;
}

char *
format_type_be(Oid type)
{
	return "a";
}

int
GetDatabaseEncoding(void)
{
	return PG_UTF8;
}

bool
pg_verify_mbstr(int encoding, const char *text, int size, bool no_error)
{
	return pg_encoding_verifymbstr(encoding, text, size) == size;
}
