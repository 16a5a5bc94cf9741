/*
 * gateway/roster.c
 *		Who may send what to a server: its options, streams and user mappings, and the rights of roles, as the catalogue has them. What the
 *		functions promise is in gateway/gateway.h.
 *
 * Read whole when something has changed, kept as long as nothing has. Secrets are kept as digests under a key that the process
 * draws at its start, so that how long a look-up takes tells nothing of them.
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <unistd.h>

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/pg_class.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_foreign_table.h"
#include "catalog/pg_user_mapping.h"
#include "access/reloptions.h"
#include "common/hmac.h"
#include "foreign/foreign.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/hsearch.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"

#include "base/option.h"
#include "base/transaction.h"
#include "gateway/gateway.h"
#include "source/connector.h"
#include "source/siblings.h"
#include "stream/definition.h"

typedef struct RosterRight
{
	struct
	{
		Oid		role;
		Oid		relid;
		AclMode mode;
	} key;
	bool allowed;
} RosterRight;

#define ROSTER_WAITS 3 /* for streams that are held, in one look */

static uint8		 roster_key[32];
static bool			 roster_key_drawn = false;
static ResourceOwner roster_owner = NULL;

/* ---- digests ---- */

bool
streamext_gateway_hmac(const char *key, Size key_size, const char *const *parts, const Size *sizes, int n,
					   uint8 digest[32])
{
	ResourceOwner saved = CurrentResourceOwner;
	pg_hmac_ctx	 *ctx;
	bool		  done;

	/* PostgreSQL's needs one, and outside of transactions there is none */
	if (roster_owner == NULL)
		roster_owner = ResourceOwnerCreate(NULL, "streamext gateway");
	CurrentResourceOwner = roster_owner;
	ctx = pg_hmac_create(PG_SHA256);
	done = ctx != NULL && pg_hmac_init(ctx, (const uint8 *) key, key_size) == 0;
	for (int i = 0; i < n && done; i++)
		done = pg_hmac_update(ctx, (const uint8 *) parts[i], sizes[i]) == 0;
	done = done && pg_hmac_final(ctx, digest, 32) == 0;
	if (ctx != NULL)
		pg_hmac_free(ctx);
	CurrentResourceOwner = saved;
	return done;
}

bool
streamext_gateway_same(const void *a, const void *b, Size size)
{
	const volatile uint8 *left = a, *right = b;
	uint8				  different = 0;

	for (Size i = 0; i < size; i++)
		different |= left[i] ^ right[i];
	return different == 0;
}

static bool
roster_digest(const char *secret, Size size, uint8 digest[32])
{
	if (!roster_key_drawn && !pg_strong_random(roster_key, sizeof(roster_key)))
		return false;
	roster_key_drawn = true;
	return streamext_gateway_hmac((char *) roster_key, sizeof(roster_key), &secret, &size, 1, digest);
}

char *
streamext_gateway_secret_file(const char *file, char **problem)
{
	DefElem		*def = makeDefElem("file", (Node *) makeString(pstrdup(file)), -1);
	StreamConfig config = { .user_options = list_make1(def) };

	return streamext_connector_secret(&config, "", "file", problem);
}

/* ---- users ---- */

/*
 * Who owns the server could give himself any role's rights by a mapping of his own making: what he may not become, its tokens make nobody.
 */
static bool
roster_may_become(const Gateway *gateway, Oid role)
{
	return superuser_arg(gateway->owner) || !superuser_arg(role);
}

static void
roster_user(Gateway *gateway, Oid role, List *options)
{
	StreamConfig config = { .user_options = options };
	char		*problem;
	char		*secret = streamext_connector_secret(&config, "token", "token_file", &problem);
	GatewayUser *user = &gateway->users[gateway->nusers];

	if (problem != NULL)
		streamext_gateway_error(gateway, "user mapping of role \"%s\": %s", GetUserNameFromId(role, true), problem);
	if (secret == NULL || secret[0] == '\0')
		return;
	if (!OidIsValid(role) || !roster_may_become(gateway, role))
		streamext_gateway_error(gateway, "a user mapping with a token names %s",
								OidIsValid(role) ? "a superuser, and the server's owner is none" : "no role");
	else if (roster_digest(secret, strlen(secret), user->digest))
	{
		user->role = role;
		user->name = GetUserNameFromId(role, true);
		gateway->nusers += user->name != NULL;
	}
	explicit_bzero(secret, strlen(secret));
}

static void
roster_users(Gateway *gateway)
{
	Relation	rel = table_open(UserMappingRelationId, AccessShareLock);
	SysScanDesc scan = systable_beginscan(rel, InvalidOid, false, NULL, 0, NULL);
	HeapTuple	tuple;
	int			capacity = 16;

	gateway->users = palloc0(sizeof(GatewayUser) * capacity);
	gateway->nusers = 0;
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_user_mapping form = (Form_pg_user_mapping) GETSTRUCT(tuple);
		bool				 isnull;
		Datum				 datum;

		if (form->umserver != gateway->serverid)
			continue;
		if (gateway->nusers == capacity)
			gateway->users = repalloc(gateway->users, sizeof(GatewayUser) * (capacity *= 2));
		datum = heap_getattr(tuple, Anum_pg_user_mapping_umoptions, RelationGetDescr(rel), &isnull);
		if (!isnull)
			roster_user(gateway, form->umuser, untransformRelOptions(datum));
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

Oid
streamext_gateway_authenticate(Gateway *gateway, const char *name, const char *secret, Size size, uint8 digest[32])
{
	Oid role = InvalidOid;

	if (!roster_digest(secret, size, digest))
		return InvalidOid;
	for (int i = 0; i < gateway->nusers; i++)
	{
		const GatewayUser *user = &gateway->users[i];

		if (streamext_gateway_same(user->digest, digest, sizeof(user->digest)) && !OidIsValid(role) &&
			(name == NULL || strcmp(name, user->name) == 0))
			role = user->role;
	}
	return role;
}

bool
streamext_gateway_still(const Gateway *gateway, Oid role, const uint8 digest[32])
{
	static const uint8 none[32] = { 0 };

	if (memcmp(digest, none, sizeof(none)) == 0)
		return role == gateway->anonymous;
	for (int i = 0; i < gateway->nusers; i++)
		if (gateway->users[i].role == role && memcmp(gateway->users[i].digest, digest, 32) == 0)
			return true;
	return false;
}

static Oid
roster_anonymous(Gateway *gateway)
{
	const char *name = streamext_option(gateway->options, "anonymous_role");
	Oid			role = name != NULL ? get_role_oid(name, true) : InvalidOid;

	if (OidIsValid(role) && !has_privs_of_role(gateway->owner, role))
	{
		streamext_gateway_error(gateway, "the server's owner has no privileges of the role in anonymous_role");
		return InvalidOid;
	}
	if (name != NULL && !OidIsValid(role))
		streamext_gateway_error(gateway, "the role in anonymous_role does not exist");
	return role;
}

/* ---- streams ---- */

typedef struct RosterStream
{
	const Gateway *gateway;
	Oid			   relid;
	MemoryContext  cxt;
	StreamConfig  *config; /* NULL: it is gone, or not to be had */
	char		  *key;
} RosterStream;

/* A StreamextStep. */
static void
roster_stream_step(void *arg)
{
	RosterStream *item = arg;
	MemoryContext old = MemoryContextSwitchTo(item->cxt);

	item->config = streamext_stream_config(item->relid);
	if (item->config != NULL)
		item->key = item->gateway->ops->key(item->config);
	MemoryContextSwitchTo(old);
}

/*
 * Whose it is may hold it for as long as he likes, or have made it what cannot be read: the others are served as they are now. The commit that made it
 * known holds it for a moment yet, so one that was not held before is waited for.
 */
static bool
roster_look(Gateway *gateway, const Gateway *former, RosterStream *item)
{
	ErrorData *error;

	if ((list_member_oid(former->held, item->relid) || list_length(gateway->held) >= ROSTER_WAITS) &&
		!ConditionalLockRelationOid(item->relid, AccessShareLock))
		return false;
	item->cxt = AllocSetContextCreate(gateway->cxt, "streamext gateway stream", ALLOCSET_SMALL_SIZES);
	error = streamext_try(roster_stream_step, item);
	if (error == NULL)
		return true;
	if (streamext_error_is_lock(error->sqlerrcode))
		return false;
	if (streamext_error_blame(error) == BLAME_GENERAL)
		ReThrowError(error);
	streamext_gateway_error(gateway, "could not read stream \"%s\": %s", get_rel_name(item->relid), error->message);
	return true;
}

/* former: the roster before */
static void
roster_stream(Gateway *gateway, const Gateway *former, Oid relid)
{
	RosterStream   item = { .gateway = gateway, .relid = relid };
	GatewayStream *stream = &gateway->streams[gateway->nstreams];

	if (roster_look(gateway, former, &item))
	{
		if (item.config == NULL)
			return;
		stream->config = item.config;
		stream->cxt = item.cxt;
		stream->key = item.key;
	}
	else
	{
		const GatewayStream *known = streamext_gateway_stream(former, relid);

		gateway->held = lappend_oid(gateway->held, relid);
		if (known == NULL)
			return;
		*stream = *known;
	}
	stream->slot = -1;
	if (stream->key != NULL && streamext_gateway_stream_named(gateway, stream->key) != NULL)
	{
		streamext_gateway_error(gateway, "stream \"%s\" is named as another one of the server", stream->config->name);
		stream->key = NULL;
	}
	gateway->nstreams++;
}

/* Those that are as they were live on in the roster that they are in now. */
static void
roster_adopt(Gateway *gateway)
{
	for (int i = 0; i < gateway->nstreams; i++)
		if (MemoryContextGetParent(gateway->streams[i].cxt) != gateway->cxt)
			MemoryContextSetParent(gateway->streams[i].cxt, gateway->cxt);
}

GatewayStream *
streamext_gateway_stream(const Gateway *gateway, Oid relid)
{
	for (int i = 0; i < gateway->nstreams; i++)
		if (gateway->streams[i].config->relid == relid)
			return &gateway->streams[i];
	return NULL;
}

GatewayStream *
streamext_gateway_stream_named(Gateway *gateway, const char *key)
{
	for (int i = 0; i < gateway->nstreams; i++)
		if (gateway->streams[i].key != NULL && strcmp(gateway->streams[i].key, key) == 0)
			return &gateway->streams[i];
	return NULL;
}

/* ---- rights ---- */

static HTAB *
roster_make_rights(MemoryContext cxt)
{
	HASHCTL control = { .keysize = sizeof(((RosterRight *) NULL)->key), .entrysize = sizeof(RosterRight), .hcxt = cxt };

	return hash_create("streamext gateway rights", 64, &control, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/* A role or relation that is gone since the roster was read may do nothing, and raises nothing. */
static bool
roster_check(Oid role, Oid relid, AclMode mode)
{
	MemoryContext old = CurrentMemoryContext;
	bool		  allowed = false;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(role)) &&
		SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		allowed = pg_class_aclcheck(relid, role, mode) == ACLCHECK_OK;
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return allowed;
}

bool
streamext_gateway_allows(Gateway *gateway, Oid role, Oid relid, AclMode mode)
{
	RosterRight	 wanted;
	RosterRight *right;
	bool		 found;

	memset(&wanted, 0, sizeof(wanted));
	wanted.key.role = role;
	wanted.key.relid = relid;
	wanted.key.mode = mode;
	right = hash_search(gateway->rights, &wanted.key, HASH_FIND, NULL);
	if (right != NULL)
		return right->allowed;
	wanted.allowed = roster_check(role, relid, mode);
	right = hash_search(gateway->rights, &wanted.key, HASH_ENTER, &found);
	right->allowed = wanted.allowed;
	return right->allowed;
}

/* ---- all of it ---- */

/* In gateway->cxt, in a transaction. */
static bool
roster_read(Gateway *gateway, const Gateway *former)
{
	ForeignServer *server = GetForeignServerExtended(gateway->serverid, FSV_MISSING_OK);
	List		  *relids;
	ListCell	  *lc;

	if (server == NULL || streamext_server_kind(gateway->serverid) == NULL)
		return false;
	gateway->options = server->options;
	gateway->owner = server->owner;
	gateway->rights = roster_make_rights(gateway->cxt);
	roster_users(gateway);
	gateway->anonymous = roster_anonymous(gateway);
	relids = streamext_sibling_tables(gateway->serverid);
	gateway->streams = palloc0(sizeof(GatewayStream) * Max(list_length(relids), 1));
	gateway->nstreams = 0;
	gateway->held = NIL;
	foreach (lc, relids)
		roster_stream(gateway, former, lfirst_oid(lc));
	for (int i = 0; i < gateway->nstreams; i++)
	{
		GatewayStream *stream = &gateway->streams[i];

		memset(&stream->place, 0, sizeof(stream->place));
		stream->first = NULL;
		stream->last = &stream->first;
		stream->nrequests = 0;
	}
	return true;
}

bool
streamext_gateway_roster(Gateway *gateway)
{
	Gateway		  next = *gateway;
	MemoryContext old = CurrentMemoryContext;
	volatile bool there = false;

	next.cxt = AllocSetContextCreate(TopMemoryContext, "streamext gateway roster", ALLOCSET_DEFAULT_SIZES);
	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		streamext_worker_short_lock_timeout();
		MemoryContextSwitchTo(next.cxt);
		there = roster_read(&next, gateway);
		MemoryContextSwitchTo(old);
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(old);
		MemoryContextDelete(next.cxt);
		PG_RE_THROW();
	}
	PG_END_TRY();
	if (!there)
	{
		MemoryContextDelete(next.cxt);
		return false;
	}
	roster_adopt(&next);
	if (gateway->cxt != NULL)
		MemoryContextDelete(gateway->cxt);
	*gateway = next;
	gateway->version++;
	return true;
}
