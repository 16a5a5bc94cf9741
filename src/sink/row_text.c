/*
 * sink/row_text.c
 *		Rows as texts of JSON. What the functions promise is in sink/row_text.h.
 *
 * How a type becomes JSON is what PostgreSQL's datum_to_jsonb does with it. Its numbers pass through numeric, so a float with an exponent is
 * written out, and what is no number of JSON (NaN, Infinity) is a string.
 */
#include "base/streamext.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "sink/row_text.h"

#define ROW_TEXT_DIGITS 32 /* of an integer or a shortest float, and more */

typedef void (*RowTextPut)(RowText *text, RowTextColumn *column, Datum value);

struct RowTextColumn
{
	int		   number; /* in the row, from 0 */
	RowTextPut put;
	char	  *name;   /* unquoted */
	char	  *before; /* "{" or ", ", the name as JSON, ": " */
	uint32	   before_size;
	Oid		   type;		/* what a domain is over */
	FmgrInfo   function;	/* the type's output, or to_jsonb */
	int		   from, until; /* where the value stands in the row at hand */
	bool	   has_time;	/* the value before, of a window mostly, and its text */
	Datum	   time;
	char	   time_text[MAXDATELEN + 3];
};

/* ---- values ---- */

static void
text_put_string(StringInfo out, const char *p, int size)
{
	const char *end = p + size;

	appendStringInfoCharMacro(out, '"');
	while (p < end)
	{
		const char *plain = p;

		while (p < end && (unsigned char) *p >= ' ' && *p != '"' && *p != '\\')
			p++;
		appendBinaryStringInfo(out, plain, p - plain);
		if (p == end)
			break;
		switch (*p)
		{
			case '\b':
				appendStringInfoString(out, "\\b");
				break;
			case '\f':
				appendStringInfoString(out, "\\f");
				break;
			case '\n':
				appendStringInfoString(out, "\\n");
				break;
			case '\r':
				appendStringInfoString(out, "\\r");
				break;
			case '\t':
				appendStringInfoString(out, "\\t");
				break;
			case '"':
				appendStringInfoString(out, "\\\"");
				break;
			case '\\':
				appendStringInfoString(out, "\\\\");
				break;
			default:
				appendStringInfo(out, "\\u%04x", (int) *p);
		}
		p++;
	}
	appendStringInfoCharMacro(out, '"');
}

static void
text_put_bool(RowText *text, RowTextColumn *column, Datum value)
{
	appendStringInfoString(&text->row, DatumGetBool(value) ? "true" : "false");
}

static void
text_put_int(RowText *text, int64 value)
{
	char digits[ROW_TEXT_DIGITS];

	appendBinaryStringInfo(&text->row, digits, pg_lltoa(value, digits));
}

static void
text_put_int2(RowText *text, RowTextColumn *column, Datum value)
{
	text_put_int(text, DatumGetInt16(value));
}

static void
text_put_int4(RowText *text, RowTextColumn *column, Datum value)
{
	text_put_int(text, DatumGetInt32(value));
}

static void
text_put_int8(RowText *text, RowTextColumn *column, Datum value)
{
	text_put_int(text, DatumGetInt64(value));
}

/* What a type of numbers outputs. */
static void
text_put_number(RowText *text, const char *digits)
{
	Datum number;

	if (strchr(digits, 'N') != NULL || strchr(digits, 'n') != NULL)
		text_put_string(&text->row, digits, strlen(digits));
	else if (strchr(digits, 'e') == NULL && strcmp(digits, "-0") != 0)
		appendStringInfoString(&text->row, digits);
	else
	{
		number =
			DirectFunctionCall3(numeric_in, CStringGetDatum(digits), ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1));
		appendStringInfoString(&text->row, DatumGetCString(DirectFunctionCall1(numeric_out, number)));
	}
}

/* The shortest digits of a float: most have no exponent. */
static void
text_put_shortest(RowText *text, const char *digits, int size, bool finite)
{
	if (finite && memchr(digits, 'e', size) == NULL && (size != 2 || memcmp(digits, "-0", 2) != 0))
		appendBinaryStringInfo(&text->row, digits, size);
	else
		text_put_number(text, digits);
}

static void
text_put_float4(RowText *text, RowTextColumn *column, Datum value)
{
	char digits[ROW_TEXT_DIGITS];
	int	 size;

	if (extra_float_digits <= 0)
	{
		text_put_number(text, DatumGetCString(DirectFunctionCall1(float4out, value)));
		return;
	}
	size = float_to_shortest_decimal_buf(DatumGetFloat4(value), digits);
	text_put_shortest(text, digits, size, isfinite(DatumGetFloat4(value)));
}

static void
text_put_float8(RowText *text, RowTextColumn *column, Datum value)
{
	char digits[ROW_TEXT_DIGITS];
	int	 size;

	if (extra_float_digits <= 0)
	{
		text_put_number(text, DatumGetCString(DirectFunctionCall1(float8out, value)));
		return;
	}
	size = double_to_shortest_decimal_buf(DatumGetFloat8(value), digits);
	text_put_shortest(text, digits, size, isfinite(DatumGetFloat8(value)));
}

static void
text_put_numeric(RowText *text, RowTextColumn *column, Datum value)
{
	text_put_number(text, DatumGetCString(DirectFunctionCall1(numeric_out, value)));
}

static void
text_put_time(RowText *text, RowTextColumn *column, Datum value)
{
	if (!column->has_time || column->time != value)
	{
		char buffer[MAXDATELEN + 1];

		snprintf(column->time_text, sizeof(column->time_text), "\"%s\"",
				 JsonEncodeDateTime(buffer, value, column->type, NULL));
		column->time = value;
		column->has_time = true;
	}
	appendStringInfoString(&text->row, column->time_text);
}

static void
text_put_text(RowText *text, RowTextColumn *column, Datum value)
{
	struct varlena *packed = PG_DETOAST_DATUM_PACKED(value);

	text_put_string(&text->row, VARDATA_ANY(packed), VARSIZE_ANY_EXHDR(packed));
}

static void
text_put_output(RowText *text, RowTextColumn *column, Datum value)
{
	char *output = OutputFunctionCall(&column->function, value);

	text_put_string(&text->row, output, strlen(output));
}

static void
text_put_jsonb(RowText *text, RowTextColumn *column, Datum value)
{
	Jsonb *json = DatumGetJsonbP(FunctionCall1(&column->function, value));

	(void) JsonbToCString(&text->row, &json->root, VARSIZE(json));
}

/* ---- columns ---- */

/* A scalar of PostgreSQL's own that is a string in JSON: its output. */
static bool
text_is_output(Oid type)
{
	return type < FirstNormalObjectId && type != JSONOID && type != JSONBOID && get_typtype(type) == TYPTYPE_BASE &&
		   !OidIsValid(get_element_type(type));
}

static RowTextPut
text_choose(Oid type)
{
	switch (type)
	{
		case BOOLOID:
			return text_put_bool;
		case INT2OID:
			return text_put_int2;
		case INT4OID:
			return text_put_int4;
		case INT8OID:
			return text_put_int8;
		case FLOAT4OID:
			return text_put_float4;
		case FLOAT8OID:
			return text_put_float8;
		case NUMERICOID:
			return text_put_numeric;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return text_put_time;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			return text_put_text;
		default:
			return text_is_output(type) ? text_put_output : text_put_jsonb;
	}
}

static void
text_column(RowTextColumn *column, const FormData_pg_attribute *attribute, int number)
{
	Oid	 output;
	bool varlena;

	column->number = number;
	column->name = pstrdup(NameStr(attribute->attname));
	column->type = getBaseType(attribute->atttypid);
	column->put = text_choose(column->type);
	if (column->put == text_put_output)
	{
		getTypeOutputInfo(column->type, &output, &varlena);
		fmgr_info(output, &column->function);
	}
	else if (column->put == text_put_jsonb)
	{
		Node *argument = (Node *) makeNullConst(attribute->atttypid, -1, attribute->attcollation);

		fmgr_info(F_TO_JSONB, &column->function);
		fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSONB, JSONBOID, list_make1(argument), InvalidOid, InvalidOid,
												 COERCE_EXPLICIT_CALL),
						   &column->function);
	}
}

/* As jsonb orders the keys of an object. */
static int
text_compare_columns(const void *a, const void *b)
{
	const char *x = ((const RowTextColumn *) a)->name, *y = ((const RowTextColumn *) b)->name;
	size_t		n = strlen(x), m = strlen(y);

	return n != m ? (n > m ? 1 : -1) : memcmp(x, y, n);
}

static void
text_name_columns(RowText *text)
{
	for (int i = 0; i < text->ncolumns; i++)
	{
		StringInfoData before;

		initStringInfo(&before);
		appendStringInfoString(&before, i == 0 ? "{" : ", ");
		text_put_string(&before, text->columns[i].name, strlen(text->columns[i].name));
		appendStringInfoString(&before, ": ");
		text->columns[i].before = before.data;
		text->columns[i].before_size = before.len;
	}
}

static int
text_find_column(const RowText *text, const char *name)
{
	for (int i = 0; i < text->ncolumns; i++)
		if (strcmp(text->columns[i].name, name) == 0)
			return i;
	elog(ERROR, "the view has no column \"%s\"", name);
	return -1; /* keep the compiler quiet */
}

RowText *
streamext_row_text_create(TupleDesc desc, List *keys)
{
	RowText	 *text = palloc0(sizeof(RowText));
	ListCell *lc;

	initStringInfo(&text->row);
	initStringInfo(&text->key);
	text->per_row = AllocSetContextCreate(CurrentMemoryContext, "streamext row", ALLOCSET_SMALL_SIZES);
	text->columns = palloc0(sizeof(RowTextColumn) * Max(desc->natts, 1));
	for (int i = 0; i < desc->natts; i++)
		text_column(&text->columns[text->ncolumns++], TupleDescAttr(desc, i), i);
	qsort(text->columns, text->ncolumns, sizeof(RowTextColumn), text_compare_columns);
	text_name_columns(text);
	text->keys = palloc(sizeof(int) * (list_length(keys) + 1));
	foreach (lc, keys)
		text->keys[text->nkeys++] = text_find_column(text, lfirst(lc));
	return text;
}

/* ---- rows ---- */

void
streamext_row_text_write(RowText *text, TupleTableSlot *slot)
{
	MemoryContext old = MemoryContextSwitchTo(text->per_row);

	slot_getallattrs(slot);
	resetStringInfo(&text->row);
	resetStringInfo(&text->key);
	for (int i = 0; i < text->ncolumns; i++)
	{
		RowTextColumn *column = &text->columns[i];

		appendBinaryStringInfo(&text->row, column->before, column->before_size);
		column->from = text->row.len;
		if (slot->tts_isnull[column->number])
			appendBinaryStringInfo(&text->row, "null", 4);
		else
			column->put(text, column, slot->tts_values[column->number]);
		column->until = text->row.len;
	}
	appendStringInfoString(&text->row, text->ncolumns > 0 ? "}" : "{}");
	appendStringInfoCharMacro(&text->key, '[');
	for (int k = 0; k < text->nkeys; k++)
	{
		const RowTextColumn *column = &text->columns[text->keys[k]];

		if (k > 0)
			appendBinaryStringInfo(&text->key, ", ", 2);
		appendBinaryStringInfo(&text->key, text->row.data + column->from, column->until - column->from);
	}
	appendStringInfoCharMacro(&text->key, ']');
	MemoryContextSwitchTo(old);
	MemoryContextReset(text->per_row);
}
