/*
 * base/identity.h
 *		As whom code runs: the one way to become the owner of a stream or view, and the one way to become the extension.
 *
 * Whatever a user has written, types' input and checks, casts, operators, functions folded into constants, aggregates, triggers, runs
 * inside a scope of the owner's: with his rights, in a security-restricted operation, under a search_path that nobody else chooses. The
 * extension's own tables are written inside a scope of the extension's, in which nothing of a user's runs.
 *
 * A scope costs about two microseconds: enter it once for a batch and a stream or view, never for a row. It ends with leave, or with the
 * (sub)transaction that it was entered in if that aborts; scopes nest. Settings that were changed inside, by us or by what ran there,
 * are as before then. Ways out are closed by the restriction itself: no SET ROLE or SESSION AUTHORIZATION, no deferred trigger that
 * would fire after leave (it raises 42501), no cursor WITH HOLD, no temporary table, no LISTEN.
 */
#ifndef STREAMEXT_IDENTITY_H
#define STREAMEXT_IDENTITY_H

#include "postgres.h"

#include "base/compat.h"

typedef struct IdentityScope
{
	Oid user;
	int sec_context;
	int guc_level;
} IdentityScope;

/* Needs a transaction. */
extern IdentityScope streamext_identity_enter(Oid owner);
/* For code in C alone, which a superuser has installed: whose rights it has matters, no setting does. Costs next to nothing. */
extern IdentityScope streamext_identity_enter_lightly(Oid owner);
/* Who made the extension and owns its tables; for statements on these alone. Needs a transaction. */
extern IdentityScope streamext_identity_enter_extension(void);
extern void			 streamext_identity_leave(IdentityScope scope);

/*
 * For what a worker's transaction does between scopes: it rests as the owner too, restricted, so that what nobody thought of gets no more than
 * he has; the worker's session has its search_path pinned. Up to the transaction's end: after its commit rise, an abort does so itself.
 */
extern void streamext_identity_rest(Oid owner);
extern void streamext_identity_rise(void);

/*
 * While somebody looks at what others have made, as monitoring does: code of ordinary roles that would run without any row, and may take any time, raises
 * STREAMEXT_ERRCODE_GLANCE where the functions below are asked for it. False ends it.
 */
#define STREAMEXT_ERRCODE_GLANCE MAKE_SQLSTATE('5', '5', 'X', 'G', '0')
extern void				streamext_identity_glance(bool glances);
extern bool				streamext_identity_glances(void);
pg_noreturn extern void streamext_identity_refuse_glance(void);

/*
 * Whether who is at work is a superuser and the function or type is somebody's who is none: it would run as him, who has not written it.
 * So it is while a dump is restored, where everything is the superuser's until ALTER ... OWNER TO. For what runs without any row.
 */
extern bool streamext_identity_mistrusts_function(Oid function);
extern bool streamext_identity_mistrusts_type(Oid type);
/* The same of a value that is read: is there a domain or range of an ordinary role's anywhere in the type? */
extern bool streamext_identity_mistrusts_input(Oid type);
/* The same of a relation's columns; it stays locked as for reading, so that they stay what they are. */
extern bool streamext_identity_mistrusts_columns(Oid relid);
/* Whether this process is the extension's: there is nobody in it who wrote the statement, and an error would be everybody's. */
extern bool streamext_identity_is_own_process(void);
/* Before rows of it become JSON for who is at work: raises 42501 if that is not to be. */
extern void streamext_identity_check_columns(Oid relid);

/* A setting for the rest of the scope, or of a NewGUCNestLevel of the caller's; NULL leaves it as it is. */
extern void streamext_identity_set(const char *name, const char *value);

#endif /* STREAMEXT_IDENTITY_H */
