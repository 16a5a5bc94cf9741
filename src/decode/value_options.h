/*
 * decode/value_options.h
 *		Options of columns that say how their values are written: time_format, time_zone, on_bad_value, encoding.
 */
#ifndef STREAMEXT_DECODE_VALUE_OPTIONS_H
#define STREAMEXT_DECODE_VALUE_OPTIONS_H

#include "lib/stringinfo.h"

#include "base/option.h"
#include "base/stream_def.h"

extern const OptionSpec streamext_value_options[];

/* What the options say, into the column. */
extern void streamext_value_options_read(StreamColumn *column, List *options);

/* All that they say, for who compares. */
extern void streamext_value_options_append(StringInfo s, const StreamColumn *column);

/* What the options of a column, and its type, mean together; raises. */
extern void streamext_value_options_check(const StreamColumn *column);

/* Digits behind the point of the seconds that a unix format counts; -1: the format is none. */
extern int streamext_time_format_digits(TimeFormat format);

#endif /* STREAMEXT_DECODE_VALUE_OPTIONS_H */
