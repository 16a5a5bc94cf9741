/*
 * gateway/gateway.h
 *		A process for each server whose records are brought to it (ConnectorOps.gateway): it listens, knows who may send what, and puts what
 *		it takes into the streams' journals before it says so. What is spoken is a protocol's: GatewayOps, a line in gateway/kinds.h.
 *
 * One thread, one loop: wait for the latch, the protocol's descriptor or its time-out; look at the catalogue if something has changed; run the
 * protocol, which submits what it has received whole; append all that was submitted, an append and at most one fsync for each stream; tell
 * the protocol of each (done), which answers. So a slow disk makes groups larger, not answers wrong, and none is given before the append.
 *
 * Nothing of a user's runs here: records are cut and appended; what is in them is looked at by the stream's worker.
 *
 * An error that is raised inside of the protocol's library would pass through its frames: then the process ends, the launcher starts it
 * again, and nothing is lost that was acknowledged.
 */
#ifndef STREAMEXT_GATEWAY_H
#define STREAMEXT_GATEWAY_H

#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "base/stream_def.h"
#include "gateway/keys.h"
#include "shared/shmem.h"
#include "source/journal/journal.h"

struct GatewayOps;
struct GatewayRequest;

/* A stream of the server; lives until the roster is read again (Gateway.version), so keep its relid across rounds. */
typedef struct GatewayStream
{
	StreamConfig		  *config;
	MemoryContext		   cxt;	 /* of config and key */
	char				  *key;	 /* GatewayOps.key's: what a sender names it by */
	int					   slot; /* index into streams[]; -1: none yet */
	JournalPlace		   place;
	struct GatewayRequest *first, **last; /* submitted, not appended */
	int					   nrequests;
} GatewayStream;

/* A role that may show itself by a secret. */
typedef struct GatewayUser
{
	Oid	  role;
	char *name;
	uint8 digest[32]; /* of the secret, under a key of this process */
} GatewayUser;

typedef struct Gateway
{
	const struct GatewayOps *ops;
	GatewaySlot				*slot;
	Oid						 serverid;
	int						 listen_fd; /* -1: none */
	void					*own;		/* the protocol's, from start to stop; NULL: it does not run */

	/* the roster; read anew when the catalogue has changed */
	uint64		   version;
	MemoryContext  cxt;
	List		  *options;
	Oid			   owner;
	GatewayStream *streams;
	int			   nstreams;
	List		  *held; /* OIDs of those that are as they were before, or not there: transactions hold them */
	GatewayUser	  *users;
	int			   nusers;
	Oid			   anonymous; /* InvalidOid: none */
	struct HTAB	  *rights;
} Gateway;

typedef struct GatewayOps
{
	const char *name; /* of the wrapper, as ConnectorOps.name */

	/* What senders name the stream by; in the current context. Two with the same: the first by OID has it. NULL: cannot be named. */
	char *(*key)(const StreamConfig *config);

	/* Begins to serve listen_fd, which is bound, listens, and does not block. False: *error says why, and *state which; it is tried again. */
	bool (*start)(Gateway *gateway, GatewayState *state, char *error, Size size);
	/* Ends it and all connections; listen_fd stays open. What was submitted has been told of. */
	void (*stop)(Gateway *gateway);
	/* A descriptor that is readable when run has something to do, such as an epoll's. */
	int (*wait_fd)(Gateway *gateway);
	/* Milliseconds until run must be called at the latest, -1: not before something comes. */
	long (*timeout)(Gateway *gateway);
	/* Reads and writes what there is without waiting. */
	void (*run)(Gateway *gateway);
	/* The roster was read while it runs. False: only stop and start bring it what the server's options are now. */
	bool (*options)(Gateway *gateway);
	/* SIGHUP: files that the options name may be others. True: it is to be stopped and started. May be NULL. */
	bool (*reload)(Gateway *gateway);
} GatewayOps;

#define KIND(kind) extern const GatewayOps streamext_##kind##_gateway;
#include "gateway/kinds.h"
#undef KIND

/* ---- what is taken in: gateway/intake.c ---- */

typedef enum GatewayOutcome
{
	GATEWAY_TAKEN,	  /* in the journal: acknowledge */
	GATEWAY_FULL,	  /* journal at its limit, or no room on the disk: later */
	GATEWAY_REFUSED,  /* the journal cannot be written: error */
	GATEWAY_OTHER,	  /* its key was used with another body */
	GATEWAY_NO_STREAM /* it is gone */
} GatewayOutcome;

/* The protocol's request begins with one. */
typedef struct GatewayRequest
{
	Oid			relid;
	const char *common; /* source/journal/block.h; NUL-terminated */
	uint32		common_size;
	const char *block;
	uint32		block_size;
	bool		keyed; /* taken once by key, */
	Oid			role;  /* of this role's keys */
	KeyHash		key, body;
	KeyState	key_state; /* of gateway/intake.c */
	void (*done)(struct GatewayRequest *request, GatewayOutcome outcome);
	struct GatewayRequest *next;
} GatewayRequest;

/* Appended at the end of the round; then done is called. All it points to stays until then. A block without entries is not submitted. */
extern void streamext_gateway_submit(Gateway *gateway, GatewayRequest *request);

/*
 * Finds where the stream's journal is, its end too: stream->slot and stream->place. False: the stream has no slot, its worker's launcher has not come
 * to it. Outside of transactions.
 */
extern bool streamext_gateway_place(GatewayStream *stream);

/* The end of the round. */
extern void streamext_gateway_commit(Gateway *gateway);

/* ---- who and what there is: gateway/roster.c ---- */

/* Reads it anew. False: the server is gone. Raises. */
extern bool			  streamext_gateway_roster(Gateway *gateway);
extern GatewayStream *streamext_gateway_stream(const Gateway *gateway, Oid relid);
extern GatewayStream *streamext_gateway_stream_named(Gateway *gateway, const char *key);

/* The role whose secret it is; name: it must be that role's, or NULL. InvalidOid: nobody's. Takes the same time whatever is wrong. */
extern Oid streamext_gateway_authenticate(Gateway *gateway, const char *name, const char *secret, Size size,
										  uint8 digest[32]);
/* Whether who had shown a secret with this digest, or none (zero), still acts as the role. */
extern bool streamext_gateway_still(const Gateway *gateway, Oid role, const uint8 digest[32]);

/* Whether the role may insert into the relation (ACL_INSERT), or read it. Known from the second time on. */
extern bool streamext_gateway_allows(Gateway *gateway, Oid role, Oid relid, AclMode mode);

/* HMAC-SHA256; false: no memory. */
extern bool streamext_gateway_hmac(const char *key, Size key_size, const char *const *parts, const Size *sizes, int n,
								   uint8 digest[32]);
/* In a time that does not depend on what they hold. */
extern bool streamext_gateway_same(const void *a, const void *b, Size size);

/* The trimmed contents of a file below the data directory, palloc'd; NULL and *problem. */
extern char *streamext_gateway_secret_file(const char *file, char **problem);

/* ---- the process: gateway/process.c ---- */

extern PGDLLEXPORT void streamext_gateway_main(Datum arg); /* arg: its slot's index */

/* ---- its slot: gateway/slot.c ---- */

/* The process takes the slot. False: it is another server's by now, or has a process. */
extern bool streamext_gateway_claim(Gateway *gateway, int index, const Oid identity[2]);
/* Shown in streamext.gateways. */
extern void streamext_gateway_error(Gateway *gateway, const char *format, ...) pg_attribute_printf(2, 3);
/* At the process's end, whatever ended it. */
extern void streamext_gateway_leave(Gateway *gateway);

/* ---- for the launcher: gateway/launch.c ---- */

/* Starts those that are due. Returns when to look again at the latest. exists: whether there is such a database. */
extern TimestampTz streamext_gateways_launch(TimestampTz now, bool (*exists)(Oid dboid));

#endif /* STREAMEXT_GATEWAY_H */
