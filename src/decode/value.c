/*-------------------------------------------------------------------------
 *
 * decode/value.c
 *		A column's value from a text.
 *
 * By the type's input function, or for JSON arrays and objects by json_populate_record over a row of this one column: the
 * same conversion that a user of PostgreSQL's JSON functions gets. Texts whose value depends on the moment ('now',
 * 'today') are refused: a record that is read again after a crash must mean what it meant.
 *
 * Raises for what is not a value; the caller has a subtransaction for that.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "nodes/makefuncs.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/typcache.h"

#include "decode/value.h"

#define VALUE_MAX_DATE_DIGITS 9 /* YYYYMMDD has eight */

struct ValueInput
{
	FmgrInfo	function;
	Oid			typioparam;
	int32		typmod;
	bool		of_time;   /* dates or times are in it */
	bool		time;	   /* it is one, as its input function reads it */
	const char *time_name; /* what that function calls it */
	text	   *pattern;   /* of to_timestamp; else NULL */
	Oid			type;	   /* that it is then to become */
	text	   *encoding;  /* of a bytea's text; else NULL */
	bool		domain;
	FmgrInfo	populate; /* json_populate_record, if `json` */
	bool		json;
	TupleDesc	row_desc; /* one column, called "v" */
	Datum		row;	  /* such a row, NULL */
};

bool
streamext_value_is_structured(Oid type)
{
	Oid base = getBaseType(type);

	return type_is_array(base) || get_typtype(base) == TYPTYPE_COMPOSITE;
}

static bool
value_is_of_time(Oid type)
{
	Oid base = getBaseType(type);
	Oid within = get_element_type(base);

	if (!OidIsValid(within))
		within = get_range_subtype(base);
	switch (OidIsValid(within) ? getBaseType(within) : base)
	{
		case DATEOID:
		case TIMEOID:
		case TIMETZOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			return true;
		default:
			return false;
	}
}

bool
streamext_value_is_time(Oid type)
{
	Oid base = getBaseType(type);

	return value_is_of_time(base) && !OidIsValid(get_element_type(base)) && !OidIsValid(get_range_subtype(base));
}

static const char *
value_time_name(Oid type)
{
	switch (getBaseType(type))
	{
		case DATEOID:
			return "date";
		case TIMEOID:
			return "time";
		case TIMETZOID:
			return "time with time zone";
		case TIMESTAMPOID:
			return "timestamp";
		default:
			return "timestamp with time zone";
	}
}

static void
value_add_json(ValueInput *input, Oid type)
{
	Datum value = (Datum) 0;
	bool  isnull = true;
	List *arguments = list_make2(makeNullConst(RECORDOID, -1, InvalidOid), makeNullConst(JSONOID, -1, InvalidOid));

	input->json = true;
	input->row_desc = CreateTemplateTupleDesc(1);
	TupleDescInitEntry(input->row_desc, 1, "v", type, input->typmod, 0);
	input->row_desc = BlessTupleDesc(input->row_desc);
	input->row = heap_copy_tuple_as_datum(heap_form_tuple(input->row_desc, &value, &isnull), input->row_desc);
	fmgr_info_cxt(F_JSON_POPULATE_RECORD, &input->populate, CurrentMemoryContext);
	/* It asks for the declared types of its arguments. */
	fmgr_info_set_expr((Node *) makeFuncExpr(F_JSON_POPULATE_RECORD, RECORDOID, arguments, InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL),
					   &input->populate);
}

ValueInput *
streamext_value_input(const StreamColumn *column, bool json, MemoryContext cxt)
{
	MemoryContext old = MemoryContextSwitchTo(cxt);
	ValueInput	 *input = palloc0(sizeof(ValueInput));
	Oid			  function;

	getTypeInputInfo(column->type, &function, &input->typioparam);
	fmgr_info_cxt(function, &input->function, cxt);
	input->typmod = column->typmod;
	input->of_time = value_is_of_time(column->type);
	input->domain = get_typtype(column->type) == TYPTYPE_DOMAIN && DomainHasConstraints(column->type);
	input->type = column->type;
	input->time = streamext_value_is_time(column->type);
	input->time_name = value_time_name(column->type);
	input->pattern = column->time_pattern != NULL ? cstring_to_text(column->time_pattern) : NULL;
	input->encoding = column->encoding != NULL ? cstring_to_text(column->encoding) : NULL;
	if (json && streamext_value_is_structured(column->type))
		value_add_json(input, column->type);
	MemoryContextSwitchTo(old);
	return input;
}

static Datum
value_from_json(ValueInput *input, const char *text)
{
	StringInfoData object;
	Datum		   row;
	HeapTupleData  tuple;
	bool		   isnull;

	initStringInfo(&object);
	appendStringInfo(&object, "{\"v\":%s}", text);
	row =
		FunctionCall2(&input->populate, input->row, PointerGetDatum(cstring_to_text_with_len(object.data, object.len)));
	tuple.t_data = DatumGetHeapTupleHeader(row);
	tuple.t_len = HeapTupleHeaderGetDatumLength(tuple.t_data);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	return heap_getattr(&tuple, 1, input->row_desc, &isnull);
}

/* By the column's pattern, under the TimeZone at hand. */
static Datum
value_from_pattern(ValueInput *input, char *s)
{
	Datum value = DirectFunctionCall2Coll(input->type == DATEOID ? to_date : to_timestamp, DEFAULT_COLLATION_OID,
										  PointerGetDatum(cstring_to_text(s)), PointerGetDatum(input->pattern));

	if (input->type == TIMESTAMPOID)
		value = DirectFunctionCall1(timestamptz_timestamp, value);
	if (input->type == TIMESTAMPOID && input->typmod >= 0)
		value = DirectFunctionCall2(timestamp_scale, value, Int32GetDatum(input->typmod));
	else if (input->type == TIMESTAMPTZOID && input->typmod >= 0)
		value = DirectFunctionCall2(timestamptz_scale, value, Int32GetDatum(input->typmod));
	return value;
}

/* A long run of digits is a valid date, of the year 171456 say, and never meant so. */
static void
value_refuse_number(const char *s)
{
	const char *digits = s + (*s == '-' || *s == '+');
	Size		size = strspn(digits, "0123456789");

	if (size >= VALUE_MAX_DATE_DIGITS && digits[size + strspn(digits + size, ".0123456789 ")] == '\0')
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("%s", STREAMEXT_NO_TIME_NUMBER)));
}

/* Before PostgreSQL takes a word for a time zone and looks through a directory for it, each time: a tenth of a millisecond for a record of anybody's. */
static void
value_refuse_words(const ValueInput *input, const char *s)
{
	static const char *const words[] = { "infinity", "epoch", "allballs" };

	if (strpbrk(s, "0123456789") != NULL)
		return;
	for (int i = 0; i < lengthof(words); i++)
	{
		const char *word = s + strspn(s, " \t\n+-");
		Size		size = strlen(words[i]);

		if (pg_strncasecmp(word, words[i], size) == 0)
			return;
	}
	ereport(ERROR, (errcode(ERRCODE_INVALID_DATETIME_FORMAT),
					errmsg("invalid input syntax for type %s: \"%s\"", input->time_name, s)));
}

Datum
streamext_value_convert(ValueInput *input, char *text)
{
	if (input->pattern != NULL)
		return value_from_pattern(input, text);
	if (input->encoding != NULL)
		return DirectFunctionCall2(binary_decode, PointerGetDatum(cstring_to_text(text)),
								   PointerGetDatum(input->encoding));
	if (input->of_time)
		streamext_value_check_moment(text);
	if (input->time)
	{
		value_refuse_number(text);
		value_refuse_words(input, text);
	}
	if (input->json)
		return value_from_json(input, text);
	return InputFunctionCall(&input->function, text, input->typioparam, input->typmod);
}

bool
streamext_value_checks_null(const ValueInput *input)
{
	return input->domain;
}

void
streamext_value_check_null(ValueInput *input)
{
	(void) InputFunctionCall(&input->function, NULL, input->typioparam, input->typmod);
}
