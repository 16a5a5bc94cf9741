/*
 * decode/value.h
 *		A column's value from a text: what the decoder's second pass does with one value.
 */
#ifndef STREAMEXT_DECODER_VALUE_H
#define STREAMEXT_DECODER_VALUE_H

#include "base/moment.h"
#include "base/stream_def.h"

typedef struct ValueInput ValueInput;

/* Why a number in JSON, or a text of digits that would be a date long ago or to come, is not taken for a time. */
#define STREAMEXT_NO_TIME_NUMBER \
	"a number is not read as a time: the column's option time_format ('unix', 'unix_ms', ...) says what it counts"

/* Whether JSON is converted as json_populate_record does: arrays and composite types, and domains over them. */
extern bool streamext_value_is_structured(Oid type);

/* Whether values of the type are a date or time (and not an array or range of such). */
extern bool streamext_value_is_time(Oid type);

/* `json`: texts are JSON, strings with their quotes; else what the type's input function reads. All is allocated in cxt. */
extern ValueInput *streamext_value_input(const StreamColumn *column, bool json, MemoryContext cxt);

/* The value, in the current context; raises if the text is none. */
extern Datum streamext_value_convert(ValueInput *input, char *text);

/* Whether the type is a domain that may refuse NULL; streamext_value_check_null raises if it does. */
extern bool streamext_value_checks_null(const ValueInput *input);
extern void streamext_value_check_null(ValueInput *input);

#endif /* STREAMEXT_DECODER_VALUE_H */
