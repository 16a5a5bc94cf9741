/*-------------------------------------------------------------------------
 *
 * shared/clock.c
 *		The system's clock, or the one set by streamext.set_clock.
 *
 * SharedState.test_clock holds the time with its sign bit flipped, so that 0 is -infinity, which nobody can set.
 *
 *-------------------------------------------------------------------------
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "shared/clock.h"
#include "shared/shmem.h"

#define CLOCK_SIGN_BIT (UINT64CONST(1) << 63)

PG_FUNCTION_INFO_V1(streamext_set_clock);

static bool
clock_read(TimestampTz *now)
{
	uint64 value = streamext_shared == NULL ? 0 : pg_atomic_read_u64(&streamext_shared->test_clock);

	*now = (TimestampTz) (value ^ CLOCK_SIGN_BIT);
	return value != 0;
}

bool
streamext_clock_is_set(void)
{
	TimestampTz now;

	return clock_read(&now);
}

TimestampTz
streamext_clock_now(void)
{
	TimestampTz now;

	return clock_read(&now) ? now : GetCurrentTimestamp();
}

TimestampTz
streamext_clock_statement(void)
{
	TimestampTz now;

	return clock_read(&now) ? now : GetCurrentStatementStartTimestamp();
}

/* streamext.set_clock(timestamptz): NULL gives the system's clock back. */
Datum
streamext_set_clock(PG_FUNCTION_ARGS)
{
	uint64 value = 0;

	streamext_require_preload();
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE), errmsg("must be superuser to set the clock of streams")));
	if (!PG_ARGISNULL(0))
	{
		TimestampTz now = PG_GETARG_TIMESTAMPTZ(0);

		if (TIMESTAMP_NOT_FINITE(now))
			ereport(ERROR,
					(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("the clock of streams cannot be infinite"),
					 errhint("Use NULL to go back to the system's clock.")));
		value = (uint64) now ^ CLOCK_SIGN_BIT;
	}
	pg_atomic_write_u64(&streamext_shared->test_clock, value);
	streamext_wake_all_workers();
	PG_RETURN_VOID();
}
