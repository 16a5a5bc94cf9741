/*
 * base/layout.h
 *		What the bytes of a row are made of: a layout, kept beside bytes that hold Datums and outlive the catalogue that explained them.
 *
 * A layout is flat: this header, `ntypes` LayoutTypes, `natts` LayoutAttributes, all without pointers or padding. Type number 0 is the row
 * itself; the others are all types that are reached from it (attributes of composites, elements of arrays, base types of domains,
 * subtypes of ranges), in the order in which they are met. Types with an OID of PostgreSQL's own, the same in every database, are left
 * out. Two rows have the same layout if and only if the bytes of their layouts are the same.
 *
 * Bytes are Datums of the types as they stood: they may be read as what a type is now if and only if
 * streamext_layout_reads says so, or the layouts are equal.
 */
#ifndef STREAMEXT_LAYOUT_H
#define STREAMEXT_LAYOUT_H

#include "base/streamext.h"
#include "access/tupdesc.h"

#define LAYOUT_MAGIC 0x314c5853 /* SXL1 */

typedef struct LayoutType
{
	Oid	  type;	 /* 0: the row */
	Oid	  inner; /* of an array, domain, range, multirange: element, base type, subtype, range */
	int32 first; /* of a composite, and the row: number of its first attribute */
	int32 natts;
	int16 len;
	char  byval;
	char  align;
	char  kind; /* pg_type.typtype; 'a': an array */
	char  unused[3];
} LayoutType;

typedef struct LayoutAttribute
{
	Oid	   type; /* 0: dropped */
	int32  typmod;
	int16  len;
	char   byval;
	char   align;
	char   dropped;
	char   unused[3];
	uint64 version; /* where the server numbers changes of attributes and refuses datums of former ones; else 0 */
} LayoutAttribute;

typedef struct RowLayout
{
	uint32 magic;
	uint32 size; /* of all */
	int32  ntypes;
	int32  natts;
} RowLayout;

StaticAssertDecl(sizeof(LayoutType) == 24 && sizeof(LayoutAttribute) == 24 && sizeof(RowLayout) == 16,
				 "a layout has no padding");

static inline const LayoutType *
streamext_layout_types(const RowLayout *layout)
{
	return (const LayoutType *) (layout + 1);
}

/* Of one of its composites, by attribute number - 1. */
static inline const LayoutAttribute *
streamext_layout_attributes(const RowLayout *layout, const LayoutType *type)
{
	return (const LayoutAttribute *) (streamext_layout_types(layout) + layout->ntypes) + type->first;
}

/*
 * Of rows of desc, as the catalogue is now. With `lock` composites that it reaches cannot be altered by others before the end of the
 * transaction. Palloc'd.
 */
extern RowLayout *streamext_layout_make(TupleDesc desc, bool lock);

/* A copy that lasts as long as the process; equal layouts give the same one. NULL: these bytes are none. */
extern const RowLayout *streamext_layout_intern(const void *bytes, Size size);

extern bool streamext_layout_equal(const RowLayout *a, const RowLayout *b);

/* NULL: a type of PostgreSQL's own, or unknown to it. */
extern const LayoutType *streamext_layout_find(const RowLayout *layout, Oid type);

/* Whether values of the type as it stood in `then` are such of the type as it is in `now`: the same, or a composite with more or dropped attributes. */
extern bool streamext_layout_reads(const RowLayout *then, const RowLayout *now, Oid type);

/* Of one of its composites, for heap_deform_tuple; attributes have no names. */
extern TupleDesc streamext_layout_desc(const RowLayout *layout, const LayoutType *type);

/* Of the attributes' types, if a composite is in one of them; else NULL. */
extern RowLayout *streamext_layout_changing(TupleDesc desc);

/* Whether a composite is in the type, at any depth: what its values are may change while it keeps its OID. */
extern bool streamext_type_may_change(Oid type);

/* Whether values of PostgreSQL's own type name an object (regclass, ...): kept as its OID, and what their texts are depends on search_path. */
extern bool streamext_type_names_object(Oid type);

/* Moves whenever a relation, and so a composite type, may have changed: a layout made since is still right. */
extern uint64 streamext_layout_changes(void);

#endif /* STREAMEXT_LAYOUT_H */
