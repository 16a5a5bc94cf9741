/*
 * shared/teller.h
 *		A slot for each database in which somebody is to be told: alerts, and views with streamext.notify. Its process is worker/teller.c's.
 *
 * A database has a slot from the commit, or the probe, that finds such a view on, until its teller finds none any more.
 */
#ifndef STREAMEXT_TELLER_H
#define STREAMEXT_TELLER_H

#include "base/streamext.h"
#include "base/budget.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"

#define STREAMEXT_MAX_TELLERS 64
#define STREAMEXT_TELLER_ASIDE 16 /* that a slot remembers */

typedef enum TellerEnd
{
	TELLER_CAUGHT, /* it took too long, and went on after it was cancelled */
	TELLER_FULL,   /* it left more in memory than any other when that became too much */
	TELLER_DIED	   /* the process ended in it: a library's fatal error */
} TellerEnd;

/* A view that has ended a process. */
typedef struct TellerAside
{
	Oid		  view;	 /* 0: none */
	int		  task;	 /* of the teller's, at it */
	int		  times; /* in a row */
	TellerEnd how;	 /* the last time */
} TellerAside;

typedef struct TellerSlot
{
	Oid				  dboid;	  /* registry_lock; 0: free */
	pid_t			  pid;		  /* registry_lock; 0: no process */
	Latch			 *latch;	  /* valid while pid != 0 */
	pg_atomic_uint32  generation; /* bumped when a view may be another: the teller reads the catalogue again */
	pg_atomic_uint64  requested;  /* evaluations of alerts, tickets of flush */
	pg_atomic_uint64  done;
	ConditionVariable progress; /* broadcast when done changes, and when the slot is given up */

	BudgetDeaf deaf; /* its process's, read by any */

	/* Its process's alone. */
	TellerAside aside[STREAMEXT_TELLER_ASIDE];
	Oid			last; /* the view that the last one of them was */
} TellerSlot;

extern void streamext_teller_init(TellerSlot *tellers);

/* Views of the database may want to be told of, or not any more. Wakes its teller and the launcher. Never raises. */
extern void streamext_teller_announce(Oid dboid);

/* The slot becomes this process's; NULL: it is gone, or another's. */
extern TellerSlot *streamext_teller_claim(Oid dboid);
/* This process ends for that view: the next one leaves it alone for a while, and begins with those behind it. */
extern void streamext_teller_set_aside(TellerSlot *slot, Oid view, int task, TellerEnd how);
/* It did not take too long. */
extern void streamext_teller_forgive(TellerSlot *slot, Oid view, int task);
/* How many processes have ended for it, one after the other, and *how the last one did. */
extern int streamext_teller_ended(const TellerSlot *slot, Oid view, int task, TellerEnd *how);
/* It is this process's no longer; with `free`, and if the generation is still this one, it is nobody's. False: it was another one. */
extern bool streamext_teller_leave(TellerSlot *slot, bool free, uint32 generation);

/*
 * Returns when all alerts of this database have been evaluated once since the call; with a WARNING when one of them is in code that does not react to its
 * cancel: nobody knows for how long. Raises 53400 if there is no process for it: only where
 * there are alerts, which is asked before that, for after a start of the server each database is looked at.
 */
extern void streamext_teller_wait(bool (*has_alerts)(void));

#endif /* STREAMEXT_TELLER_H */
