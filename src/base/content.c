/*
 * base/content.c
 *		The table streamext_internal.content (base/content.h).
 *
 * A row: object, number, content, types. The rows of one object and hash have the numbers hash, hash + 1, ...; none is ever taken from the middle, so the first
 * number that has no row ends a search. Rows are read by the newest snapshot, whatever the transaction's, as the state that they speak of is. Writers hold
 * ShareRowExclusiveLock.
 */
#include "base/streamext.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/relcache.h"
#include "utils/snapmgr.h"

#include "base/content.h"
#include "base/own_table.h"

#define CONTENT_TRIES 10000 /* ms, for other writers: workers that start */

enum ContentColumn
{
	CONTENT_OBJECT = 1,
	CONTENT_NUMBER,
	CONTENT_CONTENT,
	CONTENT_TYPES,
	CONTENT_COLUMNS = CONTENT_TYPES
};

typedef enum ContentFound
{
	CONTENT_NONE,	 /* no row has the number */
	CONTENT_OTHER,	 /* that of another content, or of types that the present ones do not read */
	CONTENT_SAME,	 /* of this one */
	CONTENT_EXTENDED /* of this one, with types as they were before something was added */
} ContentFound;

static bool content_keeps = false;

void
streamext_content_keep(void)
{
	content_keeps = true;
}

/* ---- looked up ---- */

static bool
content_bytes_are(Datum value, bool isnull, const void *bytes, Size size)
{
	bytea *stored = isnull ? NULL : DatumGetByteaPP(value);

	return stored != NULL && VARSIZE_ANY_EXHDR(stored) == size && memcmp(VARDATA_ANY(stored), bytes, size) == 0;
}

static bool
content_types_read(const bytea *stored, const RowLayout *types)
{
	Size				   size = VARSIZE_ANY_EXHDR(stored);
	const RowLayout		  *then;
	const LayoutAttribute *x, *y;

	if (types == NULL || size == 0)
		return types == NULL && size == 0;
	then = streamext_layout_intern(memcpy(palloc(size), VARDATA_ANY(stored), size), size);
	if (then == NULL || streamext_layout_types(then)->natts != streamext_layout_types(types)->natts)
		return false;
	x = streamext_layout_attributes(then, streamext_layout_types(then));
	y = streamext_layout_attributes(types, streamext_layout_types(types));
	for (int i = 0; i < streamext_layout_types(types)->natts; i++)
		if (x[i].type != y[i].type || !streamext_layout_reads(then, types, x[i].type))
			return false;
	return true;
}

static ContentFound
content_judge(Relation rel, HeapTuple tuple, const char *content, Size size, const RowLayout *types)
{
	Datum values[CONTENT_COLUMNS];
	bool  nulls[CONTENT_COLUMNS];

	heap_deform_tuple(tuple, RelationGetDescr(rel), values, nulls);
	if (!content_bytes_are(values[CONTENT_CONTENT - 1], nulls[CONTENT_CONTENT - 1], content, size))
		return CONTENT_OTHER;
	if (content_bytes_are(values[CONTENT_TYPES - 1], nulls[CONTENT_TYPES - 1], types, types == NULL ? 0 : types->size))
		return CONTENT_SAME;
	return content_types_read(DatumGetByteaPP(values[CONTENT_TYPES - 1]), types) ? CONTENT_EXTENDED : CONTENT_OTHER;
}

/* What stands at the number; *place is where, if it is CONTENT_EXTENDED. */
static ContentFound
content_look(Relation rel, Oid object, uint64 number, const char *content, Size size, const RowLayout *types,
			 ItemPointer place)
{
	ScanKeyData	 key[2];
	SysScanDesc	 scan;
	HeapTuple	 tuple;
	ContentFound found = CONTENT_NONE;

	ScanKeyInit(&key[0], CONTENT_OBJECT, BTEqualStrategyNumber, F_OIDEQ, ObjectIdGetDatum(object));
	ScanKeyInit(&key[1], CONTENT_NUMBER, BTEqualStrategyNumber, F_INT8EQ, Int64GetDatum((int64) number));
	InvalidateCatalogSnapshot(); /* nothing tells it of this table */
	scan = systable_beginscan(rel,
							  RelationGetPrimaryKeyIndex(rel
#if PG_VERSION_NUM >= 180000
														 ,
														 false
#endif
														 ),
							  true, NULL, 2, key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		found = content_judge(rel, tuple, content, size, types);
		*place = tuple->t_self;
	}
	systable_endscan(scan);
	return found;
}

static uint64
content_next(uint64 number)
{
	return number + 1 == 0 ? 1 : number + 1;
}

static ContentFound
content_search(Relation rel, Oid object, uint64 *number, const char *content, Size size, const RowLayout *types,
			   ItemPointer place)
{
	ContentFound found;

	while ((found = content_look(rel, object, *number, content, size, types, place)) == CONTENT_OTHER)
		*number = content_next(*number);
	return found;
}

/* ---- kept ---- */

static Datum
content_bytea(const void *bytes, Size size)
{
	bytea *result = palloc(VARHDRSZ + size);

	SET_VARSIZE(result, VARHDRSZ + size);
	if (size > 0)
		memcpy(VARDATA(result), bytes, size);
	return PointerGetDatum(result);
}

static void
content_write(Relation rel, Oid object, uint64 number, const char *content, Size size, const RowLayout *types,
			  ItemPointer replaced)
{
	Datum	  values[CONTENT_COLUMNS];
	bool	  nulls[CONTENT_COLUMNS] = { false };
	HeapTuple tuple;

	values[CONTENT_OBJECT - 1] = ObjectIdGetDatum(object);
	values[CONTENT_NUMBER - 1] = Int64GetDatum((int64) number);
	values[CONTENT_CONTENT - 1] = content_bytea(content, size);
	values[CONTENT_TYPES - 1] = content_bytea(types, types == NULL ? 0 : types->size);
	tuple = heap_form_tuple(RelationGetDescr(rel), values, nulls);
	if (replaced != NULL)
		CatalogTupleUpdate(rel, replaced, tuple);
	else
		CatalogTupleInsert(rel, tuple);
	CommandCounterIncrement();
}

/* Workers of one stream start together: each has the table for a moment, till its transaction ends. */
static void
content_lock(Oid relid)
{
	for (int i = 0; !ConditionalLockRelationOid(relid, ShareRowExclusiveLock); i++)
	{
		CHECK_FOR_INTERRUPTS();
		if (i == CONTENT_TRIES)
			ereport(ERROR, (errcode(ERRCODE_LOCK_NOT_AVAILABLE), errmsg("streamext_internal.content is locked")));
		pg_usleep(1000);
	}
}

uint64
streamext_content_number(Oid object, const char *content, Size size, const RowLayout *types, uint64 hash)
{
	Oid				relid = streamext_control_table("content");
	uint64			number = hash == 0 ? 1 : hash;
	ItemPointerData place;
	ContentFound	found;
	Relation		rel;

	if (!OidIsValid(relid) || !OidIsValid(object))
		return number;
	rel = table_open(relid, AccessShareLock);
	found = content_search(rel, object, &number, content, size, types, &place);
	if (content_keeps && !RecoveryInProgress() && found != CONTENT_SAME)
	{
		content_lock(relid);
		found = content_search(rel, object, &number, content, size, types, &place);
		if (found != CONTENT_SAME)
			content_write(rel, object, number, content, size, types, found == CONTENT_EXTENDED ? &place : NULL);
	}
	table_close(rel, NoLock);
	return number;
}

void
streamext_content_forget_dropped(void)
{
	IdentityScope scope;

	if (!OidIsValid(streamext_control_table("content")))
		return;
	scope = streamext_own_begin();
	/* What another worker, which has started with this one, is about to delete is left to it. */
	if (SPI_execute(
			streamext_own_sql(
				"DELETE FROM streamext_internal.content AS d WHERE d.ctid OPERATOR(pg_catalog.=) ANY (ARRAY("
				"SELECT c.ctid FROM streamext_internal.content AS c WHERE NOT EXISTS "
				"(SELECT FROM pg_catalog.pg_class AS r WHERE r.oid OPERATOR(pg_catalog.=) c.object) FOR UPDATE OF c SKIP LOCKED))"),
			false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not delete from streamext_internal.content");
	streamext_own_end(scope);
}
