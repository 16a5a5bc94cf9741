/*
 * unit/server.h
 *		What stands in for the server where files of src/ are linked into a program of their own: unit tests and fuzzers.
 *
 * Memory contexts are real ones, over malloc, so that sanitizers see each allocation; errors jump as in the server. What
 * server.c does not have is left unresolved by the linker, and ends the program where it is called.
 */
#ifndef STREAMEXT_UNIT_SERVER_H
#define STREAMEXT_UNIT_SERVER_H

#include "postgres.h"

#include "access/xlogdefs.h"

/* Before anything else. */
extern void server_start(void);
/* Frees all that was allocated since server_start. */
extern void server_reset(void);

/* Of the last error that was raised. */
extern int	server_sqlstate;
extern char server_message[1024];

/* Runs code; true if it raised nothing: `if (!SERVER_TRY(f(x))) ... server_sqlstate` */
#define SERVER_TRY(...)            \
	__extension__({                \
		volatile bool fine = true; \
		PG_TRY();                  \
		{                          \
			__VA_ARGS__;           \
		}                          \
		PG_CATCH();                \
		{                          \
			fine = false;          \
		}                          \
		PG_END_TRY();              \
		fine;                      \
	})

/* Transactions, as the journal asks for them: odd ids have committed, even ones not; those from server_running on run. */
extern uint64 server_next_fxid;
extern uint64 server_running;

/* What the cluster's secret is made of. */
extern char server_nonce[32];

#endif /* STREAMEXT_UNIT_SERVER_H */
