/*
 * base/layout.c
 *		Layouts: made from the catalogue, compared, taken as descriptors.
 */
#include "base/streamext.h"

#include "access/htup_details.h"
#include "access/transam.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

#include "base/layout.h"

#define LAYOUT_ARRAY 'a'

/* ---- made ---- */

typedef struct LayoutBuild
{
	LayoutType		*types;
	int				 ntypes, types_capacity;
	LayoutAttribute *attributes;
	int				 natts, attributes_capacity;
	bool			 lock;
} LayoutBuild;

static LayoutType *
build_add_type(LayoutBuild *build)
{
	if (build->ntypes == build->types_capacity)
		build->types = repalloc(build->types, sizeof(LayoutType) * (build->types_capacity *= 2));
	memset(&build->types[build->ntypes], 0, sizeof(LayoutType));
	return &build->types[build->ntypes++];
}

static void
build_add_attribute(LayoutBuild *build, TupleDesc desc, int i)
{
	Form_pg_attribute att = TupleDescAttr(desc, i);
	LayoutAttribute	 *attribute;

	if (build->natts == build->attributes_capacity)
		build->attributes = repalloc(build->attributes, sizeof(LayoutAttribute) * (build->attributes_capacity *= 2));
	attribute = &build->attributes[build->natts++];
	memset(attribute, 0, sizeof(*attribute));
	attribute->type = att->attisdropped ? InvalidOid : att->atttypid;
	attribute->typmod = att->attisdropped ? -1 : att->atttypmod;
	attribute->len = att->attlen;
	attribute->byval = att->attbyval;
	attribute->align = att->attalign;
	attribute->dropped = att->attisdropped;
#ifdef ATTRIBUTE_VERSION_ATTOPTION /* minor versions of 2026 */
	if (!att->attisdropped && desc->tdtypeid != RECORDOID)
		attribute->version = TupleDescGetAttrVersion(desc, i + 1);
#endif
}

static void
build_add_attributes(LayoutBuild *build, LayoutType *type, TupleDesc desc)
{
	type->first = build->natts;
	type->natts = desc->natts;
	for (int i = 0; i < desc->natts; i++)
		build_add_attribute(build, desc, i);
}

/* What the type itself says; what is in it is added when its turn comes. */
static void
build_note(LayoutBuild *build, Oid oid)
{
	HeapTuple	 tuple;
	Form_pg_type form;
	LayoutType	*type;

	if (oid < FirstGenbkiObjectId)
		return;
	for (int t = 1; t < build->ntypes; t++)
		if (build->types[t].type == oid)
			return;
	tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tuple))
		return; /* of a former layout; it is dropped */
	form = (Form_pg_type) GETSTRUCT(tuple);
	type = build_add_type(build);
	type->type = oid;
	type->len = form->typlen;
	type->byval = form->typbyval;
	type->align = form->typalign;
	type->kind = IsTrueArrayType(form) ? LAYOUT_ARRAY : form->typtype;
	if (type->kind == LAYOUT_ARRAY)
		type->inner = form->typelem;
	else if (type->kind == TYPTYPE_DOMAIN)
		type->inner = form->typbasetype;
	ReleaseSysCache(tuple);
	if (type->kind == TYPTYPE_RANGE)
		type->inner = get_range_subtype(oid);
	else if (type->kind == TYPTYPE_MULTIRANGE)
		type->inner = get_multirange_range(oid);
}

static void
build_expand(LayoutBuild *build, int t)
{
	Oid		  oid = build->types[t].type;
	TupleDesc desc;

	if (build->types[t].kind != TYPTYPE_COMPOSITE)
	{
		build_note(build, build->types[t].inner);
		return;
	}
	if (t > 0)
	{
		if (build->lock)
			LockRelationOid(get_typ_typrelid(oid), AccessShareLock);
		desc = lookup_rowtype_tupdesc(oid, -1);
		build_add_attributes(build, &build->types[t], desc);
		ReleaseTupleDesc(desc);
	}
	for (int i = 0; i < build->types[t].natts; i++)
		build_note(build, build->attributes[build->types[t].first + i].type);
}

RowLayout *
streamext_layout_make(TupleDesc desc, bool lock)
{
	LayoutBuild build = { .types_capacity = 4, .attributes_capacity = Max(desc->natts, 4), .lock = lock };
	Size		types_size, attributes_size;
	RowLayout  *layout;

	build.types = palloc(sizeof(LayoutType) * build.types_capacity);
	build.attributes = palloc(sizeof(LayoutAttribute) * build.attributes_capacity);
	build_add_type(&build)->kind = TYPTYPE_COMPOSITE;
	build_add_attributes(&build, &build.types[0], desc);
	for (int t = 0; t < build.ntypes; t++)
	{
		CHECK_FOR_INTERRUPTS();
		build_expand(&build, t);
	}

	types_size = sizeof(LayoutType) * build.ntypes;
	attributes_size = sizeof(LayoutAttribute) * build.natts;
	layout = palloc(sizeof(RowLayout) + types_size + attributes_size);
	layout->magic = LAYOUT_MAGIC;
	layout->size = sizeof(RowLayout) + types_size + attributes_size;
	layout->ntypes = build.ntypes;
	layout->natts = build.natts;
	memcpy(layout + 1, build.types, types_size);
	if (attributes_size > 0)
		memcpy((char *) (layout + 1) + types_size, build.attributes, attributes_size);
	pfree(build.types);
	pfree(build.attributes);
	return layout;
}

/* ---- kept ---- */

static bool
layout_is_sane(const void *bytes, Size size)
{
	RowLayout		  head;
	const LayoutType *types;

	if (size < sizeof(head))
		return false;
	memcpy(&head, bytes, sizeof(head));
	/* No bound but the size: what can be made can be read. */
	if (head.magic != LAYOUT_MAGIC || head.ntypes < 1 || head.natts < 0 || head.size > size ||
		head.size !=
			sizeof(head) + sizeof(LayoutType) * (Size) head.ntypes + sizeof(LayoutAttribute) * (Size) head.natts)
		return false;
	types = (const LayoutType *) ((const char *) bytes + sizeof(head));
	for (int t = 0; t < head.ntypes; t++)
	{
		LayoutType type;

		memcpy(&type, &types[t], sizeof(type));
		if (type.first < 0 || type.natts < 0 || type.natts > MaxTupleAttributeNumber ||
			type.first > head.natts - type.natts)
			return false;
	}
	return true;
}

const RowLayout *
streamext_layout_intern(const void *bytes, Size size)
{
	static List			   *layouts = NIL;
	static const RowLayout *last = NULL;
	ListCell			   *lc;
	MemoryContext			old;
	RowLayout			   *copy;

	if (!layout_is_sane(bytes, size))
		return NULL;
	size = ((const RowLayout *) bytes)->size;
	if (last != NULL && last->size == size && memcmp(last, bytes, size) == 0)
		return last;
	foreach (lc, layouts)
	{
		last = lfirst(lc);
		if (last->size == size && memcmp(last, bytes, size) == 0)
			return last;
	}
	old = MemoryContextSwitchTo(TopMemoryContext);
	last = NULL;
	copy = palloc(size);
	memcpy(copy, bytes, size);
	layouts = lappend(layouts, copy);
	MemoryContextSwitchTo(old);
	return last = copy;
}

/* ---- compared ---- */

bool
streamext_layout_equal(const RowLayout *a, const RowLayout *b)
{
	return a == b || (a->size == b->size && memcmp(a, b, a->size) == 0);
}

const LayoutType *
streamext_layout_find(const RowLayout *layout, Oid type)
{
	const LayoutType *types = streamext_layout_types(layout);

	for (int t = 1; t < layout->ntypes; t++)
		if (types[t].type == type)
			return &types[t];
	return NULL;
}

/* Each type once: where types are made of the same ones twice over, the ways to one double with each level. */
typedef struct LayoutComparison
{
	const RowLayout *then, *now;
	bool			*seen; /* by number of then's types: it reads, or the answer is no */
} LayoutComparison;

static bool layout_type_reads(LayoutComparison *c, Oid type);

/* Attributes keep their numbers for ever: one is what it was, or dropped and keeps its place, or came later. */
static bool
layout_attributes_read(LayoutComparison *c, const LayoutType *a, const LayoutType *b)
{
	const RowLayout		  *then = c->then, *now = c->now;
	const LayoutAttribute *x = streamext_layout_attributes(then, a), *y = streamext_layout_attributes(now, b);

	if (a->natts > b->natts)
		return false;
	for (int i = 0; i < a->natts; i++)
	{
		if (x[i].len != y[i].len || x[i].byval != y[i].byval || x[i].align != y[i].align)
			return false;
		if (!y[i].dropped && (x[i].dropped || x[i].type != y[i].type || x[i].version != y[i].version ||
							  !layout_type_reads(c, x[i].type)))
			return false;
	}
	return true;
}

static bool
layout_type_reads(LayoutComparison *c, Oid type)
{
	const LayoutType *a, *b;

	check_stack_depth();
	if (type < FirstGenbkiObjectId)
		return true;
	a = streamext_layout_find(c->then, type);
	b = streamext_layout_find(c->now, type);
	if (a != NULL && c->seen[a - streamext_layout_types(c->then)])
		return true;
	if (a == NULL || b == NULL || a->kind != b->kind || a->len != b->len || a->byval != b->byval ||
		a->align != b->align || a->inner != b->inner)
		return false;
	c->seen[a - streamext_layout_types(c->then)] = true;
	if (a->kind == TYPTYPE_COMPOSITE)
		return layout_attributes_read(c, a, b);
	return !OidIsValid(a->inner) || layout_type_reads(c, a->inner);
}

bool
streamext_layout_reads(const RowLayout *then, const RowLayout *now, Oid type)
{
	LayoutComparison c = { .then = then, .now = now };
	bool			 result;

	if (type < FirstGenbkiObjectId)
		return true;
	c.seen = palloc0(sizeof(bool) * then->ntypes);
	result = layout_type_reads(&c, type);
	pfree(c.seen);
	return result;
}

/* ---- used ---- */

TupleDesc
streamext_layout_desc(const RowLayout *layout, const LayoutType *type)
{
	const LayoutAttribute *attributes = streamext_layout_attributes(layout, type);
	TupleDesc			   desc = CreateTemplateTupleDesc(type->natts);

	for (int i = 0; i < type->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		memset(att, 0, ATTRIBUTE_FIXED_PART_SIZE);
		att->attnum = i + 1;
		att->atttypid = attributes[i].type;
		att->atttypmod = attributes[i].typmod;
		att->attlen = attributes[i].len;
		att->attbyval = attributes[i].byval;
		att->attalign = attributes[i].align;
		att->attstorage = TYPSTORAGE_PLAIN;
		att->attisdropped = attributes[i].dropped;
#if PG_VERSION_NUM >= 180000
		populate_compact_attribute(desc, i);
#else
		att->attcacheoff = -1;
#endif
	}
	return desc;
}

RowLayout *
streamext_layout_changing(TupleDesc desc)
{
	RowLayout		 *layout = streamext_layout_make(desc, false);
	const LayoutType *types = streamext_layout_types(layout);

	for (int t = 1; t < layout->ntypes; t++)
		if (types[t].kind == TYPTYPE_COMPOSITE)
			return layout;
	return NULL;
}

bool
streamext_type_may_change(Oid type)
{
	TupleDesc desc = CreateTemplateTupleDesc(1);

	TupleDescInitEntry(desc, 1, NULL, type, -1, 0);
	return streamext_layout_changing(desc) != NULL;
}

bool
streamext_type_names_object(Oid type)
{
	switch (type)
	{
		case REGPROCOID:
		case REGPROCEDUREOID:
		case REGOPEROID:
		case REGOPERATOROID:
		case REGCLASSOID:
		case REGTYPEOID:
		case REGROLEOID:
		case REGNAMESPACEOID:
		case REGCOLLATIONOID:
		case REGCONFIGOID:
		case REGDICTIONARYOID:
			return true;
		default:
			return false;
	}
}

static uint64 layout_changes = 1;

static void
layout_note_change(Datum arg, Oid relid)
{
	layout_changes++;
}

uint64
streamext_layout_changes(void)
{
	static bool watching = false;

	if (!watching)
		CacheRegisterRelcacheCallback(layout_note_change, (Datum) 0);
	watching = true;
	return layout_changes;
}
