/*
 * shared/clock.h
 *		The clock of windows, idle partitions and max_ahead: the system's, or the one set by streamext.set_clock for tests.
 */
#ifndef STREAMEXT_CLOCK_H
#define STREAMEXT_CLOCK_H

#include "base/streamext.h"

extern TimestampTz streamext_clock_now(void);
/* True while streamext.set_clock holds the clock: then it moves only when it is set, which wakes all workers. */
extern bool streamext_clock_is_set(void);
/* For a reader's sliding windows: statement start, or the test clock. */
extern TimestampTz streamext_clock_statement(void);

#endif /* STREAMEXT_CLOCK_H */
