/*-------------------------------------------------------------------------
 *
 * base/budget.c
 *		A bound on the time of a step that runs a user's code in a worker.
 *
 * PostgreSQL's timeouts keep one timer for the process and set it anew only when a step would end before it, so a step that is begun and
 * ended costs two looks at the clock.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/latch.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

#include "base/budget.h"

#define BUDGET_PATIENCE 3
#define BUDGET_AGAIN_MS 1000	 /* at the least, between two cancellations */
#define BUDGET_AGAIN_MAX_MS 2000 /* at the most: others wait */

static TimeoutId			 budget_timeout = MAX_TIMEOUTS; /* not registered */
static volatile sig_atomic_t budget_fired = 0;
static volatile sig_atomic_t budget_caught = 0;
static bool					 budget_running = false;
static BudgetDeaf			*budget_deaf = NULL; /* published there */
static Oid					 budget_view = InvalidOid;

/* In the signal handler. */
static void
budget_handler(void)
{
	/* a cancellation that is not pending any more was raised, and the step goes on nevertheless */
	if (budget_fired > 0 && !QueryCancelPending)
		budget_caught = budget_caught + 1;
	else if (budget_fired > 0 && budget_deaf != NULL && OidIsValid(budget_view) && budget_deaf->since == 0)
	{
		budget_deaf->view = budget_view;
		budget_deaf->since = GetCurrentTimestamp();
	}
	budget_fired = 1;
	if (budget_caught >= BUDGET_PATIENCE)
		ProcDiePending = true;
	else
		QueryCancelPending = true;
	InterruptPending = true;
	SetLatch(MyLatch);
}

void
streamext_budget_register(void)
{
	Assert(budget_timeout == MAX_TIMEOUTS);
	budget_timeout = RegisterTimeout(USER_TIMEOUT, budget_handler);
}

void
streamext_budget_publish(BudgetDeaf *deaf)
{
	budget_deaf = deaf;
	deaf->since = 0;
}

void
streamext_budget_begin_view(Oid view, int ms)
{
	budget_view = view;
	streamext_budget_begin(ms);
}

void
streamext_budget_begin(int ms)
{
	Assert(!budget_running);
	budget_fired = budget_caught = 0;
	if (ms <= 0 || budget_timeout == MAX_TIMEOUTS)
		return;
	budget_running = true;
	enable_timeout_every(budget_timeout, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms),
						 Min(Max(ms, BUDGET_AGAIN_MS), BUDGET_AGAIN_MAX_MS));
}

bool
streamext_budget_end(void)
{
	budget_view = InvalidOid;
	if (!budget_running)
		return false;
	disable_timeout(budget_timeout, false);
	budget_running = false;
	if (budget_deaf != NULL)
		budget_deaf->since = 0;
	/* it came when the step was over but for its end */
	if (budget_fired > 0)
		QueryCancelPending = false;
	return budget_fired > 0;
}

void
streamext_budget_explain(ErrorData *error, int ms)
{
	if (error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		error->message = psprintf("canceled, since it took more than %d s", ms / 1000);
}

bool
streamext_budget_is_over(void)
{
	return budget_running && budget_fired > 0;
}
