/*
 * sink/message.h
 *		A row of the outbox as a message.
 */
#ifndef STREAMEXT_SINK_MESSAGE_H
#define STREAMEXT_SINK_MESSAGE_H

#include "base/streamext.h"

#include "sink/transport.h"

#define MESSAGE_COLUMNS 6 /* of the row: id, view, topic, key, payload, headers */

/*
 * Fills m, in the current memory context. Why the row is not to be sent, ever; NULL: it may be. A row of SPI's, within it; raises what is not the row's
 * fault.
 */
extern char *streamext_message_read(Message *m, HeapTuple tuple, TupleDesc desc);

#endif /* STREAMEXT_SINK_MESSAGE_H */
