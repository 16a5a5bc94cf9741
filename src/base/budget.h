/*
 * base/budget.h
 *		A bound on the time of a step that runs a user's code in a worker: it is cancelled as statement_timeout cancels a statement.
 *
 * The step ends with ERRCODE_QUERY_CANCELED wherever PostgreSQL looks for interrupts. Code that catches that and goes on is cancelled
 * again, and when it has caught it three times the process ends. Code that never looks for interrupts goes on until it is done, and nothing but the end of
 * the server would end it: that is published. Steps do not nest.
 */
#ifndef STREAMEXT_BUDGET_H
#define STREAMEXT_BUDGET_H

#include "base/streamext.h"

#include "datatype/timestamp.h"

/* In shared memory; written by the process alone, in plain stores, from a signal handler too. @writers base/budget.c */
typedef struct BudgetDeaf
{
	Oid			view;
	TimestampTz since; /* the view's step does not react to its cancel; 0: it does, or none is at work */
} BudgetDeaf;

/* Once, in a process that connects to a database. */
extern void streamext_budget_register(void);

/* Where it is published of steps of views, in a process that has its slot. */
extern void streamext_budget_publish(BudgetDeaf *deaf);

/* ms; 0: no bound. */
extern void streamext_budget_begin(int ms);
/* The same for a step of a view's. */
extern void streamext_budget_begin_view(Oid view, int ms);
/* In the step's catch block as well. True if it ran over. */
extern bool streamext_budget_end(void);
/* What became of a step that ran over, of so many ms: the error says it, if it is its cancel. */
extern void streamext_budget_explain(ErrorData *error, int ms);
/* The step at hand, or the one that ended the process, has run over. */
extern bool streamext_budget_is_over(void);

#endif /* STREAMEXT_BUDGET_H */
