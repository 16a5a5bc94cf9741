/*-------------------------------------------------------------------------
 *
 * base/transaction.c
 *		Steps that may fail: in a subtransaction, and whose the error is.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/resowner.h"

#include "base/transaction.h"

#define TRANSACTION_LOCK_TIMEOUT "100" /* ms, for what a transaction holds */

ErrorBlame
streamext_error_blame(const ErrorData *error)
{
	switch (error->sqlerrcode)
	{
		case ERRCODE_LOCK_NOT_AVAILABLE:
		case ERRCODE_OBJECT_IN_USE:
		case ERRCODE_READ_ONLY_SQL_TRANSACTION:
		case ERRCODE_IN_FAILED_SQL_TRANSACTION:
		case ERRCODE_DATA_CORRUPTED:
		case ERRCODE_INDEX_CORRUPTED:
			return BLAME_GENERAL;
		default:
			break;
	}
	switch (ERRCODE_TO_CATEGORY(error->sqlerrcode))
	{
		case ERRCODE_CONNECTION_EXCEPTION:
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
		case ERRCODE_SYSTEM_ERROR:
		case ERRCODE_CONFIG_FILE_ERROR:
			return BLAME_GENERAL;
		case ERRCODE_INTERNAL_ERROR:
			return BLAME_INTERNAL;
		default:
			return BLAME_ROW;
	}
}

bool
streamext_error_is_lock(int sqlerrcode)
{
	return sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;
}

char *
streamext_error_text(const ErrorData *error)
{
	const char *text = error->message != NULL ? error->message : "";

	return pnstrdup(text, pg_mbcliplen(text, strlen(text), STREAMEXT_MAX_REASON));
}

ErrorData *
streamext_try(StreamextStep step, void *arg)
{
	MemoryContext cxt = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(cxt);
	PG_TRY();
	{
		step(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(cxt);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	CurrentResourceOwner = owner;
	return error;
}

ErrorData *
streamext_worker_caught(MemoryContext cxt)
{
	ErrorData *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(cxt);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	MemoryContextSwitchTo(cxt);
	RESUME_INTERRUPTS();
	if (ShutdownRequestPending)
		ReThrowError(error);
	return error;
}

void
streamext_worker_short_lock_timeout(void)
{
	(void) set_config_option("lock_timeout", TRANSACTION_LOCK_TIMEOUT, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL,
							 true, 0, false);
}
