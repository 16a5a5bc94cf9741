/*
 * gateway/process.c
 *		The process of a gateway: its loop, its socket, its state. What it does in each round is in gateway/gateway.h.
 */
#include "base/streamext.h"

#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/background.h"
#include "base/label.h"
#include "base/fault.h"
#include "base/option.h"
#include "base/transaction.h"
#include "gateway/gateway.h"
#include "source/listen.h"
#include "stream/definition.h"

#define GATEWAY_RETRY_MS 1000			 /* between two tries to listen, to serve, to read the catalogue */
#define GATEWAY_KEEPS (16 * 1024 * 1024) /* bytes of freed memory, at most */
#define GATEWAY_BACKLOG 1024

#define KIND(kind) &streamext_##kind##_gateway,
static const GatewayOps *const gateway_kinds[] = {
#include "gateway/kinds.h"
	NULL,
};
#undef KIND

static Gateway		 gateway;
static uint32		 gateway_generation;	 /* of the slot, when the roster was read */
static bool			 gateway_stale = true;	 /* the roster: something has changed */
static char			*gateway_listens = NULL; /* the option that listen_fd was made for */
static TimestampTz	 gateway_retry_at = 0;	 /* try again what failed; 0: nothing did */
static MemoryContext gateway_round;			 /* reset each round */
static WaitEventSet *gateway_waits = NULL;
static int			 gateway_waits_for = -1; /* the descriptor in it */

static void
gateway_fail(GatewayState state, const char *error)
{
	if (gateway.slot->state != state || strcmp(gateway.slot->last_error, error) != 0)
		ereport(LOG, (errmsg("gateway of server %s: %s", streamext_server_label(gateway.serverid), error)));
	streamext_gateway_set_state(gateway.slot, state, "", error);
	gateway_retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), GATEWAY_RETRY_MS);
}

/* ---- the socket ---- */

static int
gateway_bind(const char *host, const char *port, int *error)
{
	struct addrinfo	 hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE };
	struct addrinfo *found = NULL;
	int				 fd, one = 1;

	*error = 0;
	if (getaddrinfo(host[0] != '\0' ? host : NULL, port, &hints, &found) != 0 || found == NULL)
	{
		*error = EADDRNOTAVAIL;
		return -1;
	}
	fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0)
	{
		(void) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		(void) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	}
	if (fd < 0 || bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, GATEWAY_BACKLOG) != 0)
	{
		*error = errno;
		if (fd >= 0)
			close(fd);
		fd = -1;
	}
	freeaddrinfo(found);
	return fd;
}

/* A descriptor that is closed may come again as another one's number. */
static void
gateway_stop(void)
{
	if (gateway.own != NULL)
		gateway.ops->stop(&gateway);
	gateway.own = NULL;
	if (gateway_waits != NULL)
		FreeWaitEventSet(gateway_waits);
	gateway_waits = NULL;
}

static void
gateway_unlisten(void)
{
	gateway_stop();
	if (gateway.listen_fd >= 0)
		close(gateway.listen_fd);
	gateway.listen_fd = -1;
}

static bool
gateway_listen(const char *address)
{
	char *host, *port;
	int	  error;

	if (!streamext_listen_address(address, &host, &port))
	{
		gateway_fail(GATEWAY_FAILED, "option listen is not like host:port");
		return false;
	}
	gateway.listen_fd = gateway_bind(host, port, &error);
	if (gateway.listen_fd >= 0)
		return true;
	gateway_fail(error == EADDRINUSE ? GATEWAY_ADDRESS_IN_USE : GATEWAY_FAILED,
				 psprintf("could not listen on %s: %s", address, strerror(error)));
	return false;
}

/* ---- serving ---- */

static void
gateway_keep(char **kept, const char *text)
{
	if (*kept != NULL)
		pfree(*kept);
	*kept = text != NULL ? MemoryContextStrdup(TopMemoryContext, text) : NULL;
}

/* From what there is to what the options want. */
static void
gateway_serve(void)
{
	const char	*address = streamext_option(gateway.options, "listen");
	GatewayState state = GATEWAY_FAILED;
	char		 error[STREAMEXT_MAX_MESSAGE] = "";

	gateway_retry_at = 0;
	if (gateway_listens == NULL || strcmp(gateway_listens, address) != 0)
		gateway_unlisten();
	gateway_keep(&gateway_listens, address);
	if (gateway.listen_fd < 0 && !gateway_listen(address))
		return;
	if (gateway.own != NULL && gateway.ops->options(&gateway))
		return;
	gateway_stop();
	if (gateway.ops->start(&gateway, &state, error, sizeof(error)))
		streamext_gateway_set_state(gateway.slot, GATEWAY_LISTENING, address, NULL);
	else
	{
		gateway_unlisten(); /* who connects shall see that nobody is there */
		gateway_fail(state, error);
	}
}

/* ---- changes ---- */

static void
gateway_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	gateway_stale = true;
}

static void
gateway_relation_changed(Datum arg, Oid relid)
{
	if (!OidIsValid(relid) || gateway_stale)
		gateway_stale = true;
	else
		gateway_stale = streamext_gateway_stream(&gateway, relid) != NULL;
}

static void
gateway_watch(void)
{
	static const int caches[] = { FOREIGNSERVEROID, FOREIGNTABLEREL, USERMAPPINGOID, AUTHOID, AUTHMEMROLEMEM };

	for (int i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], gateway_changed, (Datum) 0);
	CacheRegisterRelcacheCallback(gateway_relation_changed, (Datum) 0);
}

/*
 * A server that is gone ends the process, and its slot if nobody has made it anew meanwhile. The commit that moved the generation may not have
 * sent its invalidation messages yet, and nothing wakes the process when they come: what the caches hold is not trusted then.
 */
static void
gateway_look(void)
{
	uint32 generation = pg_atomic_read_u32(&gateway.slot->generation);
	bool   moved = gateway_generation != generation;
	bool   there = true;

	if (moved)
		InvalidateSystemCaches();
	gateway_generation = generation;
	gateway_stale = false;
	if (moved)
		STREAMEXT_FAULT("gateway-before-roster");
	PG_TRY();
	{
		there = streamext_gateway_roster(&gateway);
	}
	PG_CATCH();
	{
		ErrorData *error = streamext_worker_caught(gateway_round);

		gateway_stale = true; /* what was known before holds until then */
		gateway_retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), GATEWAY_RETRY_MS);
		streamext_gateway_error(&gateway, "could not read the catalogue: %s", error->message);
		return;
	}
	PG_END_TRY();
	if (there)
		return;
	gateway_unlisten();
	(void) streamext_gateway_release(MyDatabaseId, gateway.serverid, gateway_generation);
	proc_exit(0);
}

/* What transactions hold was left as it was, or out. */
static void
gateway_look_again(void)
{
	gateway_stale = true;
	if (gateway_retry_at == 0)
		gateway_retry_at = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), GATEWAY_RETRY_MS);
}

static void
gateway_interrupts(void)
{
	bool reloaded = streamext_background_interrupts();

	if (ShutdownRequestPending)
		proc_exit(0);
	if (reloaded)
	{
		gateway_stale = true; /* files of tokens */
		if (gateway.own != NULL && gateway.ops->reload != NULL && gateway.ops->reload(&gateway))
			gateway_stop();
	}

	/* takes what other processes have invalidated */
	StartTransactionCommand();
	CommitTransactionCommand();
	if (gateway_stale || gateway_generation != pg_atomic_read_u32(&gateway.slot->generation))
	{
		bool retries = gateway_retry_at > GetCurrentTimestamp();

		if (!retries || gateway_generation != pg_atomic_read_u32(&gateway.slot->generation))
		{
			gateway_look();
			if (gateway.ops->key != NULL && gateway.cxt != NULL && !gateway_stale)
				gateway_serve();
			if (gateway.held != NIL)
				gateway_look_again();
		}
	}
	else if (gateway_retry_at != 0 && GetCurrentTimestamp() >= gateway_retry_at)
		gateway_serve();
}

/* ---- the loop ---- */

static long
gateway_timeout(void)
{
	long timeout = gateway.own != NULL ? gateway.ops->timeout(&gateway) : -1;

	if (gateway_retry_at == 0 && gateway_stale)
		return 0; /* what was committed while the roster was read: nothing wakes the process for that again */
	if (gateway_retry_at != 0)
	{
		long retry = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), gateway_retry_at) + 1;

		timeout = timeout < 0 ? retry : Min(timeout, retry);
	}
	return timeout;
}

static void
gateway_wait(void)
{
	int		  fd = gateway.own != NULL ? gateway.ops->wait_fd(&gateway) : -1;
	WaitEvent events[3];
	long	  timeout = gateway_timeout();

	if (gateway_waits != NULL && gateway_waits_for != fd)
	{
		FreeWaitEventSet(gateway_waits);
		gateway_waits = NULL;
	}
	if (gateway_waits == NULL)
	{
#if PG_VERSION_NUM >= 170000
		gateway_waits = CreateWaitEventSet(NULL, 3);
#else
		gateway_waits = CreateWaitEventSet(TopMemoryContext, 3);
#endif
		AddWaitEventToSet(gateway_waits, WL_LATCH_SET, PGINVALID_SOCKET, MyLatch, NULL);
		AddWaitEventToSet(gateway_waits, WL_EXIT_ON_PM_DEATH, PGINVALID_SOCKET, NULL, NULL);
		if (fd >= 0)
			AddWaitEventToSet(gateway_waits, WL_SOCKET_READABLE, fd, NULL, NULL);
		gateway_waits_for = fd;
	}
	(void) WaitEventSetWait(gateway_waits, timeout, events, lengthof(events), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

static void
gateway_run(void)
{
	for (;;)
	{
		MemoryContextReset(gateway_round);
		MemoryContextSwitchTo(gateway_round);
		gateway_interrupts();
		/* who asks next may know of what was committed while the roster was read */
		if (gateway_generation != pg_atomic_read_u32(&gateway.slot->generation))
			continue;
		MemoryContextSwitchTo(gateway_round);
		if (gateway.own != NULL)
		{
			gateway.ops->run(&gateway);
			streamext_gateway_commit(&gateway);
		}
		gateway_wait();
	}
}

/* ---- start and end ---- */

static void
gateway_at_exit(int code, Datum arg)
{
	streamext_gateway_leave(&gateway);
}

static void
gateway_session(void)
{
	static const char *const settings[][2] = {
		{ "search_path", "pg_catalog, pg_temp" },
		{ "statement_timeout", "0" },
		{ "lock_timeout", "0" },
		{ "deadlock_timeout", "10ms" }, /* as worker/process.c */
		{ "default_transaction_isolation", "read committed" },
		{ "session_replication_role", "origin" },
		{ "application_name", "streamext gateway" },
	};
	struct rlimit files;

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);

	/* a connection is a descriptor, and shells give a thousand */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max)
	{
		files.rlim_cur = files.rlim_max;
		(void) setrlimit(RLIMIT_NOFILE, &files);
	}
}

static const GatewayOps *
gateway_kind(void)
{
	const ConnectorOps *connector;
	const char		   *name = "";

	StartTransactionCommand();
	connector = streamext_server_kind(gateway.serverid);
	if (connector != NULL)
		name = connector->name;
	CommitTransactionCommand();
	for (const GatewayOps *const *ops = gateway_kinds; *ops != NULL; ops++)
		if (strcmp((*ops)->name, name) == 0)
			return *ops;
	return NULL;
}

void
streamext_gateway_main(Datum arg)
{
	Oid identity[2];

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	pqsignal(SIGPIPE, SIG_IGN);
	memcpy(identity, MyBgworkerEntry->bgw_extra, sizeof(identity));
	if (!streamext_gateway_claim(&gateway, DatumGetInt32(arg), identity))
		proc_exit(0);
	before_shmem_exit(gateway_at_exit, 0);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(identity[0], InvalidOid, 0);
	gateway_session();
	streamext_fault_start();

	/* what comes in is allocated and freed with each round: the system need not have it back in between */
	(void) mallopt(M_MMAP_THRESHOLD, GATEWAY_KEEPS);
	(void) mallopt(M_TRIM_THRESHOLD, GATEWAY_KEEPS);
	gateway_round = AllocSetContextCreate(TopMemoryContext, "streamext gateway round", ALLOCSET_DEFAULT_SIZES);

	gateway.ops = gateway_kind();
	if (gateway.ops == NULL)
	{
		(void) streamext_gateway_release(identity[0], gateway.serverid, pg_atomic_read_u32(&gateway.slot->generation));
		proc_exit(0);
	}
	gateway_watch();
	gateway_run();
}
