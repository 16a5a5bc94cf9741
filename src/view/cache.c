/*
 * view/cache.c
 *		Compiled views that readers of this process share: to compile one takes longer than to look a group up.
 *
 * What is compiled depends on the view, its stream and what it is joined with (relcache), and on types, functions, operators
 * and the like (syscaches). An invalidation only makes an entry stale, and may come at any time; who asks next compiles
 * anew. An entry goes once it is stale and nobody has it pinned, so it never changes in the hands of who reads by it.
 *
 * Nothing is remembered of who may read: the executor checks permissions, those on aggregates included, each time.
 */
#include "postgres.h"

#include "lib/ilist.h"
#include "pgtime.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

#include "view/compile.h"
#include "view/rights.h"

typedef struct CachedView
{
	dlist_node	  node;
	MemoryContext cxt; /* the entry and its view */
	CompiledView *view;
	int			  pins;
	bool		  stale;
} CachedView;

typedef struct CachePin
{
	CachedView			 *entry;
	MemoryContextCallback gone;
} CachePin;

static dlist_head cache_views = DLIST_STATIC_INIT(cache_views);

/* Moves with each invalidation that concerns an entry or may concern one that is being made. */
static uint64 cache_generation = 0;

/* ---- invalidation: neither raises nor frees ---- */

static void
cache_forget_relation(Datum arg, Oid relid)
{
	dlist_iter iter;

	cache_generation++;
	dlist_foreach (iter, &cache_views)
	{
		CachedView *entry = dlist_container(CachedView, node, iter.cur);

		if (!OidIsValid(relid) || relid == entry->view->relid || relid == entry->view->stream_relid ||
			entry->view->has_joins || entry->view->types != NULL || entry->view->below_views)
			entry->stale = true;
	}
}

static void
cache_forget_all(Datum arg, int cacheid, uint32 hashvalue)
{
	cache_forget_relation((Datum) 0, InvalidOid);
}

static void
cache_watch(void)
{
	static bool		 watching = false;
	static const int caches[] = { PROCOID, TYPEOID,		  OPEROID,		AGGFNOID,		  AMOPOPID,
								  CLAOID,  CONSTROID,	  NAMESPACEOID, FOREIGNSERVEROID, FOREIGNDATAWRAPPEROID,
								  AUTHOID, AUTHMEMROLEMEM };

	if (watching)
		return;
	watching = true;
	CacheRegisterRelcacheCallback(cache_forget_relation, (Datum) 0);
	for (int i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], cache_forget_all, (Datum) 0);
}

/* ---- entries ---- */

static void
cache_drop(CachedView *entry)
{
	dlist_delete(&entry->node);
	MemoryContextDelete(entry->cxt);
}

static void
cache_drop_stale(void)
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &cache_views)
	{
		CachedView *entry = dlist_container(CachedView, node, iter.cur);

		if (entry->stale && entry->pins == 0)
			cache_drop(entry);
	}
}

/* Not stale; NULL: there is none. */
static CachedView *
cache_find(Oid relid)
{
	dlist_iter iter;

	dlist_foreach (iter, &cache_views)
	{
		CachedView *entry = dlist_container(CachedView, node, iter.cur);

		if (entry->view->relid == relid && !entry->stale)
			return entry;
	}
	return NULL;
}

void
streamext_view_prepare_window(CompiledView *view)
{
	pg_tz *zone = pg_tzset(view->options.timezone);
	pg_tz *session_zone = session_timezone;

	if (zone == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("time zone \"%s\" of continuous view \"%s\" is not known", view->options.timezone,
							   get_rel_name(view->relid))));
	PG_TRY();
	{
		session_timezone = zone;
		streamext_window_prepare(&view->window, CurrentMemoryContext);
	}
	PG_FINALLY();
	{
		session_timezone = session_zone;
	}
	PG_END_TRY();
}

/* In a context of the caller's until it is complete, so that an error leaves nothing behind. */
static CachedView *
cache_make(Oid relid)
{
	MemoryContext cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext compiled view", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(cxt);
	CachedView	 *entry = palloc0(sizeof(CachedView));
	uint64		  generation = cache_generation;

	entry->cxt = cxt;
	entry->view = streamext_view_compile(relid);
	streamext_rights_check_invoker(entry->view);
	streamext_view_prepare_window(entry->view);
	entry->stale = generation != cache_generation;
	MemoryContextSwitchTo(old);
	MemoryContextSetParent(cxt, CacheMemoryContext);
	dlist_push_head(&cache_views, &entry->node);
	return entry;
}

static void
cache_unpin(void *arg)
{
	CachedView *entry = ((CachePin *) arg)->entry;

	if (--entry->pins == 0 && entry->stale)
		cache_drop(entry);
}

const CompiledView *
streamext_view_cached(Oid relid, MemoryContext user)
{
	CachePin   *pin = MemoryContextAllocZero(user, sizeof(CachePin));
	CachedView *entry;

	cache_watch();
	/* With the locks that compiling takes nothing can change; getting them tells what has. */
	LockRelationOid(relid, AccessShareLock);
	entry = cache_find(relid);
	if (entry != NULL)
	{
		LockRelationOid(entry->view->stream_relid, AccessShareLock);
		entry = cache_find(relid);
	}
	if (entry == NULL)
	{
		cache_drop_stale();
		entry = cache_make(relid);
	}
	entry->pins++;
	pin->entry = entry;
	pin->gone.func = cache_unpin;
	pin->gone.arg = pin;
	MemoryContextRegisterResetCallback(user, &pin->gone);
	return entry->view;
}
