/*
 * fold/guard.c
 *		Steps of a fold that run a user's code: as the view's owner in a subtransaction, and what becomes of a row on which one raises.
 */
#include "base/streamext.h"

#include "miscadmin.h"

#include "base/budget.h"
#include "base/transaction.h"
#include "fold/fold_private.h"

void
streamext_fold_reject(ViewFold *fold, int row, const ErrorData *error)
{
	streamext_batch_reject(fold->batch, fold->view->relid, fold->batch->record[streamext_fold_source(fold, row)],
						   error->sqlerrcode, error->message);
	fold->counts.rejected++;
}

typedef struct FoldGuarded
{
	ViewFold	 *fold;
	FoldStep	  step;
	void		 *arg;
	volatile int *at;
	bool		  result;
} FoldGuarded;

/* A StreamextStep. */
static void
guard_step(void *arg)
{
	FoldGuarded	 *guarded = arg;
	IdentityScope scope = streamext_fold_enter_owner(guarded->fold);

	guarded->result = guarded->step(guarded->fold, guarded->at, guarded->arg);
	streamext_identity_leave(scope);
}

ErrorData *
streamext_fold_guarded(ViewFold *fold, FoldStep step, void *arg, volatile int *at, volatile bool *result)
{
	FoldGuarded	  guarded = { fold, step, arg, at, false };
	MemoryContext old = MemoryContextSwitchTo(fold->batch->cxt);
	ErrorData	 *error = streamext_try(guard_step, &guarded);

	MemoryContextSwitchTo(old);
	/* cancelled in the midst of a row, which is not to blame alone, whatever its code has made of that */
	if (error != NULL && streamext_budget_is_over())
		ReThrowError(error);
	CHECK_FOR_INTERRUPTS();
	*result = guarded.result;
	if (error == NULL)
		return NULL;
	switch (streamext_error_blame(error))
	{
		case BLAME_ROW:
			break;
		case BLAME_INTERNAL:
			if (!fold->batch->again)
				ReThrowError(error);
			fold->counts.internal = error;
			break;
		case BLAME_GENERAL:
			ReThrowError(error);
	}
	return error;
}
