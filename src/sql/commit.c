/*-------------------------------------------------------------------------
 *
 * sql/commit.c
 *		What a transaction does to streams and views reaches the registry when it commits.
 *
 * DDL hooks only note names (streamext_touch_*), without regard to subtransactions: one too many is harmless, because workers
 * look into the catalogue themselves.
 *	PRE_COMMIT	what may fail: reads the catalogue and reserves slots (generation 0: no worker is started for them);
 *	COMMIT		bumps generations, wakes workers and launcher. Nothing here raises;
 *	ABORT		gives reserved slots back; a stream that has a worker is told to look again.
 * A worker may be faster than the invalidation messages of the transaction that wakes it, so it drops its caches before it looks.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "catalog/pg_class.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/lsyscache.h"

#include "base/fault.h"
#include "base/relation.h"
#include "durable/checkpoint.h"
#include "source/connector.h"
#include "durable/journal_base.h"
#include "source/journal/journal.h"
#include "durable/checkpoint_read.h"
#include "stream/definition.h"
#include "shared/database.h"
#include "shared/shmem.h"
#include "view/reads.h"
#include "view/compile.h"
#include "view/union.h"
#include "sql/commit.h"

typedef struct RegistryView
{
	Oid viewoid;
	Oid stream_relid;
	int shards; /* reserved at PRE_COMMIT; 0: it is gone */
} RegistryView;

typedef struct RegistryStream
{
	Oid relid;
	int shards; /* 0: gone, or not looked at yet */
} RegistryStream;

/* Of this transaction, in TopTransactionContext. */
static List *registry_streams = NIL;
static List *registry_views = NIL;
static List *registry_databases = NIL;
static List *registry_servers = NIL;  /* made, altered or dropped, of whatever kind */
static bool	 registry_teller = false; /* who is told of what may not be as before */
static bool	 registry_rights = false; /* who may do what is not as before */

/* ---------------------------------------------------------------- notes */

static RegistryStream *
registry_note_stream(Oid relid)
{
	RegistryStream *stream;
	ListCell	   *lc;

	foreach (lc, registry_streams)
		if (((RegistryStream *) lfirst(lc))->relid == relid)
			return lfirst(lc);
	stream = palloc0(sizeof(RegistryStream));
	stream->relid = relid;
	registry_streams = lappend(registry_streams, stream);
	return stream;
}

void
streamext_touch_stream(Oid relid)
{
	MemoryContext old;

	if (streamext_shared == NULL || !OidIsValid(relid))
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	registry_note_stream(relid);
	MemoryContextSwitchTo(old);
}

void
streamext_touch_view(Oid viewoid, Oid stream_relid)
{
	MemoryContext old;
	RegistryView *view = NULL;
	ListCell	 *lc;

	if (streamext_shared == NULL)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	if (OidIsValid(stream_relid))
		registry_note_stream(stream_relid);
	foreach (lc, registry_views)
		if (((RegistryView *) lfirst(lc))->viewoid == viewoid)
			view = lfirst(lc);
	if (view == NULL)
	{
		view = palloc0(sizeof(RegistryView));
		view->viewoid = viewoid;
		registry_views = lappend(registry_views, view);
	}
	if (OidIsValid(stream_relid))
		view->stream_relid = stream_relid;
	MemoryContextSwitchTo(old);
}

void
streamext_touch_database(Oid dboid)
{
	MemoryContext old;

	if (streamext_shared == NULL)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	registry_databases = list_append_unique_oid(registry_databases, dboid);
	MemoryContextSwitchTo(old);
}

void
streamext_touch_server(Oid serverid)
{
	MemoryContext old;

	if (streamext_shared == NULL)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	registry_servers = list_append_unique_oid(registry_servers, serverid);
	MemoryContextSwitchTo(old);
}

void
streamext_touch_teller(void)
{
	registry_teller = true;
}

void
streamext_touch_rights(void)
{
	registry_rights = true;
}

/* ---------------------------------------------------------------- before commit */

static bool
registry_is_gateway(Oid serverid)
{
	const ConnectorOps *kind = streamext_server_kind(serverid);

	return kind != NULL && kind->gateway;
}

static void
registry_reserve_gateways(void)
{
	ListCell *lc;

	foreach (lc, registry_servers)
		if (registry_is_gateway(lfirst_oid(lc)) && streamext_gateway_reserve(MyDatabaseId, lfirst_oid(lc)) < 0)
			ereport(ERROR, (errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("too many servers with a gateway"),
							errdetail("The limit is %d for all databases together.", STREAMEXT_MAX_GATEWAYS)));
}

/* The stream of a view takes a place that anybody could have who may read something: of these a role has a share. */
static void
registry_charge(const StreamConfig *config, int index)
{
	bool own = OidIsValid(config->from.inner) || config->from.parts != NIL;
	int	 most = Max(streamext_max_streams * streamext_owner_stream_share / 100, 1);

	if (streamext_stream_charge(index, own && !superuser_arg(config->owner) ? config->owner : InvalidOid, most))
		return;
	ereport(
		ERROR,
		(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
		 errmsg("too many places of streams are taken by views of role \"%s\"",
				GetUserNameFromId(config->owner, false)),
		 errdetail("One owner may have %d of %d (streamext.owner_stream_share is %d %%); a view over views takes one, "
				   "one with UNION ALL one for each part.",
				   most, streamext_max_streams, streamext_owner_stream_share),
		 errhint("Drop views, write fewer parts, or let the superuser raise streamext.owner_stream_share or "
				 "streamext.max_streams.")));
}

/* And of all places what the settings say. */
static void
registry_own(const StreamConfig *config, int index)
{
	int most = superuser_arg(config->owner) ? 0 : streamext_owner_streams;

	if (streamext_stream_own(index, config->owner, most))
		return;
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("too many streams of role \"%s\"", GetUserNameFromId(config->owner, false)),
			 errdetail("One owner may have %d (streamext.owner_streams); a stream with several workers counts once for "
					   "each, a view over views once, and one with UNION ALL once for each part.",
					   most),
			 errhint("Drop streams, whose places are free a second or so later, or let the superuser raise "
					 "streamext.owner_streams.")));
}

/* A part of UNION ALL that reads a journal holds it from now on. *other: it has read another one, or none. */
static int
registry_add_stream(StreamConfig *config, int shard, bool *other)
{
	int					index = streamext_add_stream(MyDatabaseId, config->relid, shard);
	const StreamConfig *part = streamext_stream_part(config, shard);

	if (index >= 0)
	{
		registry_charge(config, index);
		registry_own(config, index);
	}
	*other = index >= 0 && OidIsValid(part->from.origin) &&
			 streamext_stream_follow(index, part->connector->journaled ? part->from.origin : InvalidOid);
	return index;
}

pg_noreturn static void
registry_too_many_streams(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("too many streams"),
		 errdetail("The limit is %d for all databases together; a stream with several workers counts once for each, a "
				   "view over views once, and one with UNION ALL once for each part.",
				   streamext_max_streams),
		 errhint("Raise streamext.max_streams and restart the server.")));
}

static void
registry_reserve_stream(RegistryStream *stream)
{
	StreamConfig *config = streamext_stream_config(stream->relid);
	int			  shards = config == NULL ? 0 : config->workers;

	for (int shard = 0; shard < shards; shard++)
	{
		bool other;

		if (registry_add_stream(config, shard, &other) < 0)
			registry_too_many_streams();
		stream->shards = shard + 1;
	}
}

/* Whether the view has a slot on the stream: not if it is new, or has read another stream. */
static bool
registry_is_view_of(Oid viewoid, int shard, int stream)
{
	int index = streamext_find_view(MyDatabaseId, viewoid, shard);

	return index >= 0 && streamext_shared->views[index].id.stream == stream;
}

/* Where a view that is new begins; -1: where its stream does. */
static int64
registry_start(StreamConfig *config, int stream, int shard)
{
	StreamConfig *origin;

	if (config->connector->replayable)
		return -1;
	if (!OidIsValid(config->from.origin))
		return streamext_stream_journal_end(&streamext_shared->streams[stream], config, shard);
	origin = streamext_stream_config(config->from.origin);
	stream = streamext_add_stream(MyDatabaseId, config->from.origin, 0);
	return stream < 0 ? -1 : streamext_stream_journal_end(&streamext_shared->streams[stream], origin, 0);
}

pg_noreturn static void
registry_too_many_views(void)
{
	ereport(
		ERROR,
		(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED), errmsg("too many continuous views"),
		 errdetail(
			 "The limit is %d for all databases together; a view on a stream with several workers counts once for each.",
			 streamext_max_views),
		 errhint("Raise streamext.max_views and restart the server.")));
}

static void
registry_take_view(Oid viewoid, int stream, int64 start)
{
	Oid owner = streamext_relation_owner(viewoid, false);
	int most = superuser_arg(owner) ? 0 : streamext_owner_views;
	int index = streamext_reserve_view(MyDatabaseId, viewoid, stream, start, owner, most);

	if (index == STREAMEXT_VIEWS_OWNED)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("too many continuous views of role \"%s\"", GetUserNameFromId(owner, false)),
				 errdetail("One owner may have %d (streamext.owner_views); a view on a stream with several workers "
						   "counts once for each.",
						   most),
				 errhint("Drop views, or let the superuser raise streamext.owner_views.")));
	if (index < 0)
		registry_too_many_views();
}

static void
registry_reserve_view(RegistryView *view)
{
	StreamConfig *config;

	if (!streamext_view_options(view->viewoid).continuous)
		return;
	view->stream_relid = streamext_view_stream(view->viewoid);
	config = OidIsValid(view->stream_relid) ? streamext_stream_config(view->stream_relid) : NULL;
	if (config == NULL)
		return;
	for (int shard = 0; shard < config->workers; shard++)
	{
		bool  other;
		int	  stream = registry_add_stream(config, shard, &other);
		int64 start;

		if (stream < 0)
			registry_too_many_streams();
		start = registry_start(streamext_stream_part(config, shard), stream, shard);
		if (start >= 0 && (other || !registry_is_view_of(view->viewoid, shard, stream)))
			streamext_checkpoint_note_start(view->stream_relid, shard, view->viewoid, start);
		registry_take_view(view->viewoid, stream, start);
		view->shards = shard + 1;
	}
}

/* A view may have read another stream before: that one's worker must let it go. */
static void
registry_note_former_streams(void)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		ViewSlot *slot = &streamext_shared->views[i];
		ListCell *lc;

		if (!slot->id.in_use || slot->id.dboid != MyDatabaseId)
			continue;
		foreach (lc, registry_views)
			if (((RegistryView *) lfirst(lc))->viewoid == slot->id.viewoid)
				registry_note_stream(streamext_shared->streams[slot->id.stream].id.relid);
	}
	LWLockRelease(streamext_shared->registry_lock);
}

/*
 * The views that read the stream beside its worker: what it is is theirs too. Those that read by UNION ALL have places among the streams, so
 * one that a transaction holds is waited for only if it has.
 */
static void
registry_note_unions(Oid stream)
{
	ListCell *lc;

	if (get_rel_relkind(stream) != RELKIND_FOREIGN_TABLE)
		return;
	foreach (lc, streamext_union_views(stream))
		if (streamext_find_stream(MyDatabaseId, lfirst_oid(lc), 0) >= 0 ||
			ConditionalLockRelationOid(lfirst_oid(lc), AccessShareLock))
			registry_note_stream(lfirst_oid(lc));
}

static void
registry_pre_commit(void)
{
	MemoryContext old;
	ListCell	 *lc;

	registry_reserve_gateways();
	if (registry_streams == NIL && registry_views == NIL)
		return;
	old = MemoryContextSwitchTo(TopTransactionContext);
	registry_note_former_streams();
	foreach (lc, registry_views)
	{
		RegistryView *view = lfirst(lc);

		registry_reserve_view(view);
		if (view->shards > 0)
			registry_note_stream(view->stream_relid);
	}
	foreach (lc, registry_streams) /* grows */
	{
		RegistryStream *stream = lfirst(lc);

		registry_reserve_stream(stream);
		if (stream->shards > 0)
			registry_note_unions(stream->relid);
	}
	MemoryContextSwitchTo(old);
}

/* ---------------------------------------------------------------- commit and abort: nothing raises */

/* Reserved views are the workers' from now on, or go. */
static void
registry_settle_views(bool committed)
{
	ListCell *lc;

	foreach (lc, registry_views)
	{
		RegistryView *view = lfirst(lc);

		for (int shard = 0; shard < view->shards; shard++)
			streamext_settle_view(MyDatabaseId, view->viewoid, shard, committed);
	}
}

/* Those whose servers are gone find out. */
static void
registry_commit_gateways(void)
{
	ListCell *lc;

	foreach (lc, registry_servers)
		(void) streamext_gateway_announce(MyDatabaseId, lfirst_oid(lc), false);
	if (registry_servers != NIL || registry_streams != NIL || registry_rights)
		streamext_gateway_wake(MyDatabaseId);
	if (registry_servers != NIL)
	{
		streamext_wake_launcher();
		STREAMEXT_FAULT("server-announced");
	}
}

static void
registry_commit(void)
{
	ListCell *lc;

	registry_settle_views(true);
	registry_commit_gateways();
	foreach (lc, registry_streams)
	{
		RegistryStream *stream = lfirst(lc);

		for (int shard = 0; shard < STREAMEXT_MAX_SHARDS; shard++)
			streamext_announce_stream(MyDatabaseId, stream->relid, shard, shard < stream->shards);
	}
	if (registry_databases != NIL)
	{
		LWLockAcquire(streamext_shared->registry_lock, LW_EXCLUSIVE);
		foreach (lc, registry_databases)
			streamext_database_set_probe(lfirst_oid(lc), true);
		LWLockRelease(streamext_shared->registry_lock);
	}
	if (registry_teller)
		streamext_teller_announce(MyDatabaseId);
	if (registry_rights)
	{
		pg_atomic_add_fetch_u32(&streamext_shared->rights, 1);
		streamext_wake_all_workers();
	}
	if (registry_streams != NIL || registry_databases != NIL)
		streamext_wake_launcher();
}

static void
registry_abort(void)
{
	ListCell *lc;

	registry_settle_views(false);
	foreach (lc, registry_servers)
		(void) streamext_gateway_release(MyDatabaseId, lfirst_oid(lc), 0);
	foreach (lc, registry_streams)
	{
		RegistryStream *stream = lfirst(lc);

		for (int shard = 0; shard < STREAMEXT_MAX_SHARDS; shard++)
		{
			int index = streamext_find_stream(MyDatabaseId, stream->relid, shard);

			if (index >= 0 && !streamext_remove_stream_at(index, 0))
				streamext_announce_stream(MyDatabaseId, stream->relid, shard, false);
		}
	}
}

/* ---------------------------------------------------------------- callbacks */

static void
registry_forget(void)
{
	registry_streams = registry_views = registry_databases = registry_servers = NIL;
	registry_rights = registry_teller = false;
}

/* Nobody would start one when the transaction commits. */
static void
registry_refuse_prepared_gateways(void)
{
	ListCell *lc;

	foreach (lc, registry_servers)
		if (registry_is_gateway(lfirst_oid(lc)))
			ereport(ERROR, (errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
							errmsg("cannot PREPARE a transaction that has created or altered servers with a gateway")));
}

static void
registry_xact_callback(XactEvent event, void *arg)
{
	if (streamext_shared == NULL)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			registry_pre_commit();
			break;
		case XACT_EVENT_COMMIT:
			registry_commit();
			registry_forget();
			streamext_database_return_all();
			break;
		case XACT_EVENT_ABORT:
			registry_abort();
			registry_forget();
			streamext_database_return_all();
			break;
		case XACT_EVENT_PRE_PREPARE:
			if (registry_streams != NIL || registry_views != NIL || registry_teller)
				ereport(
					ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg(
						 "cannot PREPARE a transaction that has created, altered or dropped streams or continuous views")));
			registry_refuse_prepared_gateways();
			/* COMMIT PREPARED tells the workers, whatever it commits (sql/ddl.c) */
			registry_rights = false;
			break;
		default:
			break;
	}
}

void
streamext_registry_install_callbacks(void)
{
	RegisterXactCallback(registry_xact_callback, NULL);
}
