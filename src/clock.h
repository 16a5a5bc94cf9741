/*
 * clock.h
 *		The clock of windows, idle partitions and max_ahead: the system's, or the one set by streamext.set_clock for tests.
 */
#ifndef STREAMEXT_CLOCK_H
#define STREAMEXT_CLOCK_H

#include "streamext.h"

extern TimestampTz streamext_clock_now(void);
/* For a reader's sliding windows: statement start, or the test clock. */
extern TimestampTz streamext_clock_statement(void);

#endif							/* STREAMEXT_CLOCK_H */
