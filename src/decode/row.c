/*
 * decode/row.c
 *		From a row's bytes and layout to values of the stream's columns as they are now.
 *
 * For each layout other than the present one a RowReader says what becomes of each column; it is made when the first such record comes and
 * thrown away when the present layout changes.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "decode/row.h"
#include "decode/row_legacy.h"

/* A value of another type, or with another typmod, into one as it is now. */
typedef struct RowCast
{
	Oid			from, to;
	int32		from_typmod, to_typmod;
	ExprState  *state;	/* NULL: none is needed */
	const char *reason; /* there is none */
} RowCast;

typedef enum RowWay
{
	ROW_COPY,
	ROW_MISSING, /* the column's default or NULL */
	ROW_CONVERT
} RowWay;

typedef struct RowColumn
{
	RowWay way;
	Oid	   type; /* as it was */
	int32  typmod;
	Node  *missing_expr; /* not evaluated yet */
	Datum  missing;
	bool   missing_null;
} RowColumn;

typedef struct RowReader
{
	const RowLayout *layout;
	const RowLayout *present; /* of the same columns as their types are now, those that are left */
	TupleDesc		 desc;
	RowColumn		*columns;  /* of the stream as it is now */
	bool			 converts; /* decoding may raise */
	List			*casts;	   /* of RowCast * */
} RowReader;

struct RowDecoder
{
	const StreamConfig *config;
	MemoryContext		cxt; /* of what follows, reset when the layout changes */
	const RowLayout	   *layout;
	uint64				changes; /* streamext_layout_changes() when it was made */
	List			   *readers;
	RowReader		   *last;
	ExprContext		   *econtext;
	uint32				legacy_hash;
};

/* ---- the stream as it is now ---- */

RowDecoder *
streamext_row_decoder(const StreamConfig *config)
{
	RowDecoder *decoder = palloc0(sizeof(RowDecoder));

	decoder->config = config;
	decoder->cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext row layouts", ALLOCSET_SMALL_SIZES);
	decoder->legacy_hash = streamext_row_legacy_hash(config->desc);
	streamext_row_decoder_refresh(decoder);
	return decoder;
}

void
streamext_row_decoder_refresh(RowDecoder *decoder)
{
	uint64	   changes = streamext_layout_changes();
	RowLayout *layout;

	if (decoder->changes == changes)
		return;
	layout = streamext_layout_make(decoder->config->desc, false);
	decoder->changes = changes;
	decoder->layout = streamext_layout_intern(layout, layout->size);
	if (decoder->readers != NIL)
	{
		decoder->readers = NIL;
		decoder->last = NULL;
		if (decoder->econtext != NULL)
			FreeExprContext(decoder->econtext, true);
		decoder->econtext = NULL;
		MemoryContextReset(decoder->cxt);
	}
	pfree(layout);
}

/* ---- what becomes of a column ---- */

static void
reader_missing(RowDecoder *decoder, RowReader *reader, int i)
{
	Form_pg_attribute att = TupleDescAttr(decoder->config->desc, i);
	TupleConstr		 *constr = decoder->config->desc->constr;
	RowColumn		 *column = &reader->columns[i];

	column->way = ROW_MISSING;
	column->missing_null = true;
	if (att->attisdropped)
		return;
	for (int d = 0; constr != NULL && d < constr->num_defval; d++)
		if (constr->defval[d].adnum == att->attnum)
			column->missing_expr = stringToNode(constr->defval[d].adbin);
	if (column->missing_expr != NULL || get_typtype(att->atttypid) == TYPTYPE_DOMAIN)
		reader->converts = true;
}

/* A default that is the same whenever it is evaluated: rows that were there before the column have it, as in a table. */
static void
reader_evaluate_missing(RowDecoder *decoder, RowColumn *column, Form_pg_attribute att)
{
	MemoryContext old = MemoryContextSwitchTo(decoder->cxt);
	Expr		 *expr = expression_planner((Expr *) copyObject(column->missing_expr));
	Datum		  value;

	if (!contain_mutable_functions((Node *) expr))
	{
		value = ExecEvalExpr(ExecInitExpr(expr, NULL), decoder->econtext, &column->missing_null);
		if (!column->missing_null)
			column->missing = att->attlen == -1 ? PointerGetDatum(PG_DETOAST_DATUM_COPY(value))
												: datumCopy(value, att->attbyval, att->attlen);
	}
	column->missing_expr = NULL;
	MemoryContextSwitchTo(old);
}

static RowReader *
reader_make(RowDecoder *decoder, const RowLayout *layout)
{
	MemoryContext		   old = MemoryContextSwitchTo(decoder->cxt);
	const LayoutType	  *row = streamext_layout_types(layout);
	const LayoutAttribute *attributes = streamext_layout_attributes(layout, row);
	RowReader			  *reader = palloc0(sizeof(RowReader));
	TupleDesc			   now = decoder->config->desc;
	RowLayout			  *made;

	if (decoder->econtext == NULL)
		decoder->econtext = CreateStandaloneExprContext();
	reader->layout = layout;
	reader->desc = streamext_layout_desc(layout, row);
	made = streamext_layout_make(reader->desc, false);
	reader->present = streamext_layout_intern(made, made->size);
	reader->columns = palloc0(sizeof(RowColumn) * Max(now->natts, 1));
	for (int i = 0; i < now->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(now, i);
		RowColumn		 *column = &reader->columns[i];

		if (att->attisdropped || i >= row->natts || attributes[i].dropped)
		{
			reader_missing(decoder, reader, i);
			continue;
		}
		column->type = attributes[i].type;
		column->typmod = attributes[i].typmod;
		if (att->atttypid == column->type && att->atttypmod == column->typmod &&
			streamext_layout_reads(layout, reader->present, column->type))
			column->way = ROW_COPY;
		else
		{
			column->way = ROW_CONVERT;
			reader->converts = true;
		}
	}
	decoder->readers = lappend(decoder->readers, reader);
	MemoryContextSwitchTo(old);
	return reader;
}

static RowReader *
reader_of(RowDecoder *decoder, const RowLayout *layout)
{
	ListCell *lc;

	if (decoder->last != NULL && decoder->last->layout == layout)
		return decoder->last;
	foreach (lc, decoder->readers)
		if (((RowReader *) lfirst(lc))->layout == layout)
			return decoder->last = lfirst(lc);
	return decoder->last = reader_make(decoder, layout);
}

/* ---- casts ---- */

static void
cast_refuse(Oid from, Oid to, const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_CANNOT_COERCE),
			 errmsg("a value inserted as type %s cannot be read as type %s", format_type_be(from), format_type_be(to)),
			 errdetail("%s", reason)));
}

static RowCast *
cast_make(Oid from, int32 from_typmod, Oid to, int32 to_typmod)
{
	RowCast		 *cast = palloc0(sizeof(RowCast));
	CaseTestExpr *value = makeNode(CaseTestExpr);
	Node		 *expr;

	cast->from = from;
	cast->to = to;
	cast->from_typmod = from_typmod;
	cast->to_typmod = to_typmod;
	value->typeId = from;
	value->typeMod = from_typmod;
	value->collation = get_typcollation(from);
	expr =
		coerce_to_target_type(NULL, (Node *) value, from, to, to_typmod, COERCION_EXPLICIT, COERCE_EXPLICIT_CAST, -1);
	if (expr == NULL)
		cast->reason = "There is no cast.";
	else if (!IsA(expr, CaseTestExpr))
		cast->state = ExecInitExpr(expression_planner((Expr *) expr), NULL);
	return cast;
}

static RowCast *
cast_of(RowDecoder *decoder, RowReader *reader, Oid from, int32 from_typmod, Oid to, int32 to_typmod)
{
	MemoryContext old;
	RowCast		 *cast;
	ListCell	 *lc;

	foreach (lc, reader->casts)
	{
		cast = lfirst(lc);
		if (cast->from == from && cast->from_typmod == from_typmod && cast->to == to && cast->to_typmod == to_typmod)
			return cast;
	}
	old = MemoryContextSwitchTo(decoder->cxt);
	cast = cast_make(from, from_typmod, to, to_typmod);
	reader->casts = lappend(reader->casts, cast);
	MemoryContextSwitchTo(old);
	return cast;
}

/* A value of a type, whose members may have been others, as the type is now. Not NULL. */
static Datum row_present(RowDecoder *decoder, RowReader *reader, Datum value, Oid type);

static Datum
row_convert(RowDecoder *decoder, RowReader *reader, Datum value, bool *isnull, Oid from, int32 from_typmod, Oid to,
			int32 to_typmod)
{
	RowCast *cast;

	check_stack_depth();
	if (!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(from)))
	{
		if (*isnull)
			return value;
		ereport(ERROR, (errcode(ERRCODE_CANNOT_COERCE),
						errmsg("the type with OID %u that a value was inserted as is no more", from)));
	}
	if (!*isnull && !streamext_layout_reads(reader->layout, reader->present, from))
		value = row_present(decoder, reader, value, from);
	if (from == to && from_typmod == to_typmod)
		return value;
	cast = cast_of(decoder, reader, from, from_typmod, to, to_typmod);
	if (cast->reason != NULL && !*isnull)
		cast_refuse(from, to, cast->reason);
	if (cast->state == NULL)
		return value;
	decoder->econtext->caseValue_datum = value;
	decoder->econtext->caseValue_isNull = *isnull;
	return ExecEvalExpr(cast->state, decoder->econtext, isnull);
}

static Datum
row_present_composite(RowDecoder *decoder, RowReader *reader, Datum value, const LayoutType *then)
{
	const LayoutAttribute *attributes = streamext_layout_attributes(reader->layout, then);
	HeapTupleHeader		   header = (HeapTupleHeader) PG_DETOAST_DATUM_COPY(value);
	TupleDesc			   desc = streamext_layout_desc(reader->layout, then);
	TupleDesc			   now = lookup_rowtype_tupdesc_copy(then->type, -1);
	Datum				  *values = palloc0(sizeof(Datum) * Max(Max(then->natts, now->natts), 1));
	bool				  *nulls = palloc(sizeof(bool) * Max(Max(then->natts, now->natts), 1));
	HeapTupleData		   tuple;

#ifdef HEAP_IS_DATUM
	/* what it is made of is known here; the server knows but what the type is now, and would refuse it */
	header->t_infomask &= ~HEAP_IS_DATUM;
#endif
	tuple.t_len = HeapTupleHeaderGetDatumLength(header);
	ItemPointerSetInvalid(&tuple.t_self);
	tuple.t_tableOid = InvalidOid;
	tuple.t_data = header;
	memset(nulls, true, sizeof(bool) * Max(Max(then->natts, now->natts), 1));
	heap_deform_tuple(&tuple, desc, values, nulls);
	for (int i = 0; i < now->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(now, i);

		if (att->attisdropped || i >= then->natts || attributes[i].dropped)
			nulls[i] = true;
		else
			values[i] = row_convert(decoder, reader, values[i], &nulls[i], attributes[i].type, attributes[i].typmod,
									att->atttypid, att->atttypmod);
	}
	return heap_copy_tuple_as_datum(heap_form_tuple(now, values, nulls), now);
}

static Datum
row_present_array(RowDecoder *decoder, RowReader *reader, Datum value, const LayoutType *then)
{
	ArrayType		 *array = DatumGetArrayTypeP(value);
	const LayoutType *element = streamext_layout_find(reader->layout, then->inner);
	Datum			 *values;
	bool			 *nulls;
	int				  n;

	deconstruct_array(array, then->inner, element->len, element->byval, element->align, &values, &nulls, &n);
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			values[i] = row_present(decoder, reader, values[i], then->inner);
	if (n == 0)
		return value;
	return PointerGetDatum(construct_md_array(values, nulls, ARR_NDIM(array), ARR_DIMS(array), ARR_LBOUND(array),
											  then->inner, element->len, element->byval, element->align));
}

static Datum
row_present(RowDecoder *decoder, RowReader *reader, Datum value, Oid type)
{
	const LayoutType *then = streamext_layout_find(reader->layout, type);
	const LayoutType *now = streamext_layout_find(reader->present, type);

	check_stack_depth();
	if (streamext_layout_reads(reader->layout, reader->present, type))
		return value;
	if (then == NULL || now == NULL || now->kind != then->kind || now->inner != then->inner)
		cast_refuse(type, type, "The type has been made anew.");
	if (then->kind == TYPTYPE_COMPOSITE)
		return row_present_composite(decoder, reader, value, then);
	if (then->kind == TYPTYPE_DOMAIN)
		return row_present(decoder, reader, value, then->inner);
	if (then->kind == 'a')
		return row_present_array(decoder, reader, value, then);
	cast_refuse(type, type, "A type inside it has been altered.");
	return (Datum) 0;
}

/* ---- rows ---- */

static const char *
row_tuple(const StreamRecord *record, void *bytes, HeapTuple tuple)
{
	MinimalTuple minimal = bytes;

	if (record->payload_size < SizeofMinimalTupleHeader)
		return "the row is cut off";
	memcpy(minimal, record->payload, record->payload_size);
	if (minimal->t_len != record->payload_size)
		return "the row is cut off";
	tuple->t_len = minimal->t_len + MINIMAL_TUPLE_OFFSET;
	tuple->t_data = (HeapTupleHeader) ((char *) minimal - MINIMAL_TUPLE_OFFSET);
	tuple->t_tableOid = InvalidOid;
	ItemPointerSetInvalid(&tuple->t_self);
	return NULL;
}

bool
streamext_row_may_raise(RowDecoder *decoder, const StreamRecord *record)
{
	if (likely(record->layout == decoder->layout) || record->layout == NULL)
		return false;
	return reader_of(decoder, record->layout)->converts;
}

static void
row_read(RowDecoder *decoder, RowReader *reader, HeapTuple tuple, Datum *values, bool *nulls)
{
	TupleDesc now = decoder->config->desc;
	int		  n = Max(reader->desc->natts, now->natts);
	Datum	 *then_values = palloc(sizeof(Datum) * Max(n, 1));
	bool	 *then_nulls = palloc(sizeof(bool) * Max(n, 1));

	heap_deform_tuple(tuple, reader->desc, then_values, then_nulls);
	for (int i = 0; i < now->natts; i++)
	{
		const RowColumn *column = &reader->columns[i];

		if (column->way == ROW_MISSING)
		{
			if (column->missing_expr != NULL)
				reader_evaluate_missing(decoder, &reader->columns[i], TupleDescAttr(now, i));
			values[i] = column->missing;
			nulls[i] = column->missing_null;
			continue;
		}
		values[i] = then_values[i];
		nulls[i] = then_nulls[i];
		if (column->way == ROW_CONVERT)
		{
			Form_pg_attribute att = TupleDescAttr(now, i);

			values[i] = row_convert(decoder, reader, values[i], &nulls[i], column->type, column->typmod, att->atttypid,
									att->atttypmod);
			if (!nulls[i] && att->attlen == -1)
				values[i] = PointerGetDatum(PG_DETOAST_DATUM(values[i]));
		}
	}
	pfree(then_values);
	pfree(then_nulls);
}

const char *
streamext_row_decode(RowDecoder *decoder, const StreamRecord *record, void *bytes, Datum *values, bool *nulls,
					 int *sqlstate)
{
	HeapTupleData tuple;
	const char	 *reason = row_tuple(record, bytes, &tuple);

	*sqlstate = ERRCODE_DATA_CORRUPTED;
	if (reason != NULL)
		return reason;
	if (likely(record->layout == decoder->layout))
	{
		heap_deform_tuple(&tuple, decoder->config->desc, values, nulls);
		return NULL;
	}
	if (record->layout != NULL)
	{
		row_read(decoder, reader_of(decoder, record->layout), &tuple, values, nulls);
		return NULL;
	}
	*sqlstate = ERRCODE_DATATYPE_MISMATCH;
	if (record->row_type_hash != decoder->legacy_hash)
		return "the row was inserted before the stream's columns were changed, by a version that did not note what they were";
	if (!streamext_row_legacy_check(&tuple, decoder->config->desc))
		return "the row was inserted by a version that did not note what its columns were, and its bytes cannot be checked";
	heap_deform_tuple(&tuple, decoder->config->desc, values, nulls);
	return NULL;
}

/* ---- for people ---- */

/* Names are those of now, by number; false: of some column nothing is known any more. */
static bool
json_names(const RowDecoder *decoder, const RowLayout *layout, TupleDesc desc)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		if (att->attisdropped)
			continue;
		if (!SearchSysCacheExists1(TYPEOID, ObjectIdGetDatum(att->atttypid)))
			return false;
		if (i < decoder->config->desc->natts && !decoder->config->columns[i].dropped)
			namestrcpy(&att->attname, decoder->config->columns[i].name);
		else
			snprintf(NameStr(att->attname), NAMEDATALEN, "(dropped column %d)", i + 1);
		att->attcollation = get_typcollation(att->atttypid);
	}
	return true;
}

text *
streamext_row_json(RowDecoder *decoder, const StreamRecord *record)
{
	HeapTupleData tuple;
	TupleDesc	  desc;
	Datum		 *values;
	bool		 *nulls;
	int			  sqlstate;

	if (record->payload == NULL || record->payload_size < SizeofMinimalTupleHeader)
		return NULL;
	desc = record->layout == NULL ? CreateTupleDescCopy(decoder->config->desc)
								  : streamext_layout_desc(record->layout, streamext_layout_types(record->layout));
	values = palloc(sizeof(Datum) * Max(Max(desc->natts, decoder->config->desc->natts), 1));
	nulls = palloc(sizeof(bool) * Max(Max(desc->natts, decoder->config->desc->natts), 1));
	if (record->layout == NULL)
	{
		if (streamext_row_decode(decoder, record, palloc(record->payload_size), values, nulls, &sqlstate) != NULL)
			return NULL;
	}
	else
	{
		if (row_tuple(record, palloc(record->payload_size), &tuple) != NULL ||
			!json_names(decoder, record->layout, desc))
			return NULL;
		heap_deform_tuple(&tuple, desc, values, nulls);
	}
	for (int i = 0; i < desc->natts && record->layout != NULL && record->layout != decoder->layout; i++)
		if (!nulls[i])
			values[i] =
				row_present(decoder, reader_of(decoder, record->layout), values[i], TupleDescAttr(desc, i)->atttypid);
	desc->tdtypeid = RECORDOID;
	desc->tdtypmod = -1;
	desc = BlessTupleDesc(desc);
	return DatumGetTextPP(
		DirectFunctionCall1(row_to_json, heap_copy_tuple_as_datum(heap_form_tuple(desc, values, nulls), desc)));
}
