/*
 * base/moment.h
 *		Texts of values that mean the same whenever and wherever they are read: by DDL, by a worker, by one that reads a record again.
 */
#ifndef STREAMEXT_MOMENT_H
#define STREAMEXT_MOMENT_H

#include "base/streamext.h"

/* Sets TimeZone, DateStyle, IntervalStyle as they are for decoding, for the GUC nest level at hand. */
extern void streamext_decoder_settings(void);

/* Raises if a word of a time's text stands for the moment at which it is read. */
extern void streamext_value_check_moment(const char *text);

#endif /* STREAMEXT_MOMENT_H */
