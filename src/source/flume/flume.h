/*
 * source/flume/flume.h
 *		What Flume servers and their streams are made of: options, and how an event's headers are kept with it. Who receives is gateway/flume.c;
 *		the worker reads what that has put into the journal.
 */
#ifndef STREAMEXT_FLUME_H
#define STREAMEXT_FLUME_H

#include "base/streamext.h"

#include "lib/stringinfo.h"

#include "source/connector.h"

typedef enum FlumeProtocol
{
	FLUME_AVRO,
	FLUME_THRIFT
} FlumeProtocol;

extern const OptionSpec streamext_flume_options[];

extern void streamext_flume_configure(StreamConfig *config);
extern void streamext_flume_check(const StreamConfig *config);

/* The topic whose events the stream takes, palloc'd; "": those that no other one takes. A SiblingName. */
extern char *streamext_flume_topic(List *table_options, const char *schema, const char *name);

/*
 * The head of an entry (source/journal/block.h) is an event's headers: a byte 1, then for each the size of its name and of its value (32 bits
 * each), name, value. Of several with one name the last counts.
 */
typedef struct FlumeHeader
{
	const char *name, *value;
	uint32		name_size, value_size;
} FlumeHeader;

extern void streamext_flume_head_begin(StringInfo head);
extern void streamext_flume_head_add(StringInfo head, const FlumeHeader *header);

/* The header at *at, which moves behind it; begin with 0. False: there are no more, or what is there is none. */
extern bool streamext_flume_head_next(const char *head, uint32 size, uint32 *at, FlumeHeader *header);

/* The one of this name; false: there is none. */
extern bool streamext_flume_head_find(const char *head, uint32 size, const char *name, FlumeHeader *header);

#endif /* STREAMEXT_FLUME_H */
