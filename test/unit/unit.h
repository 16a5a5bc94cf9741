/*
 * unit/unit.h
 *		Checks of the unit tests: plain C over files of src/ that need no server.
 *
 * A test is a function `void test_<what>(void)`, listed in unit.c. CHECK counts, and says where it failed; nothing stops.
 */
#ifndef STREAMEXT_UNIT_H
#define STREAMEXT_UNIT_H

#include "server.h"

extern int unit_failures;

#define CHECK(condition)                                                                     \
	do                                                                                       \
	{                                                                                        \
		if (!(condition))                                                                    \
			unit_failures++, fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
	} while (0)

/* A directory of its own for the test at hand, removed behind it. */
extern const char *unit_directory(void);

extern void test_checksum(void);
extern void test_chunk(void);
extern void test_clip(void);
extern void test_csv(void);
extern void test_feed(void);
extern void test_flume(void);
extern void test_journal(void);
extern void test_key(void);
extern void test_mqtt_topic(void);
extern void test_number(void);
extern void test_time(void);
extern void test_unix_time(void);
extern void test_window(void);

#endif /* STREAMEXT_UNIT_H */
