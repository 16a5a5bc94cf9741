/*
 * base/budget.h
 *		A bound on the time of a step that runs a user's code in a worker: it is cancelled as statement_timeout cancels a statement.
 *
 * The step ends with ERRCODE_QUERY_CANCELED wherever PostgreSQL looks for interrupts. Code that catches that and goes on is cancelled
 * again, and when it has caught it three times the process ends. Steps do not nest.
 */
#ifndef STREAMEXT_BUDGET_H
#define STREAMEXT_BUDGET_H

#include "base/streamext.h"

/* Once, in a process that connects to a database. */
extern void streamext_budget_register(void);

/* ms; 0: no bound. */
extern void streamext_budget_begin(int ms);
/* In the step's catch block as well. True if it ran over. */
extern bool streamext_budget_end(void);
/* What became of a step that ran over, of so many ms: the error says it, if it is its cancel. */
extern void streamext_budget_explain(ErrorData *error, int ms);
/* The step at hand, or the one that ended the process, has run over. */
extern bool streamext_budget_is_over(void);

#endif /* STREAMEXT_BUDGET_H */
