/*
 * gateway/flume_batch.c
 *		A batch of Flume's from its call to its answer: which streams take its events, a block for each, and what becomes of them.
 *
 * A batch is acknowledged when all its events are in their streams' journals. If one of several streams does not take its part the batch is not
 * acknowledged, and comes again; then the others' parts are known and left out (gateway/flume_taken.c).
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "gateway/flume_private.h"
#include "source/flume/flume.h"
#include "source/journal/block.h"

#define FLUME_NO_TOPIC "flume" /* what dead letters show as the topic of a stream without one */
#define FLUME_SHOWN_TOPIC 64   /* bytes of it in a message */

/* The events of one stream. */
typedef struct FlumePart
{
	GatewayRequest	   base;
	struct FlumeBatch *batch;
	StringInfoData	   block, common;
} FlumePart;

/* Lives until the end of the round, when it has been told of. */
typedef struct FlumeBatch
{
	FlumeConnection *connection;
	FlumeCall		 call;
	List			*parts; /* of FlumePart * */
	Size			 size;	/* of their blocks */
	int				 waits; /* parts that were not told of */
	GatewayOutcome	 worst;
} FlumeBatch;

/* ---- answers ---- */

static void
flume_answer(FlumeConnection *connection, const FlumeCall *call, const char *error)
{
	StringInfoData answer;

	initStringInfo(&answer);
	connection->server->protocol->answer(call, error, &answer);
	connection->refused = error != NULL;
	streamext_flume_send(connection, answer.data, answer.len);
	pfree(answer.data);
}

/* What is wrong stands in streamext.gateways too, since who looks there need not read Flume's log. */
static void
flume_refuse(FlumeConnection *connection, const FlumeCall *call, const char *error)
{
	streamext_gateway_error(connection->server->gateway, "a batch was not acknowledged: %s", error);
	flume_answer(connection, call, error);
}

static const char *
flume_outcome(GatewayOutcome outcome)
{
	switch (outcome)
	{
		case GATEWAY_TAKEN:
			return NULL;
		case GATEWAY_FULL:
			return "the stream's journal is full; send the batch again later";
		case GATEWAY_NO_STREAM:
			return "the stream is not ready; send the batch again";
		case GATEWAY_OTHER:
		case GATEWAY_REFUSED:
			break;
	}
	return "the stream's journal cannot be written";
}

static void
flume_done(GatewayRequest *base, GatewayOutcome outcome)
{
	FlumePart		*part = (FlumePart *) base;
	FlumeBatch		*batch = part->batch;
	FlumeConnection *connection = batch->connection;

	if (outcome == GATEWAY_TAKEN)
		streamext_flume_taken_add(&connection->last, base->relid);
	else
		batch->worst = outcome;
	if (--batch->waits > 0)
		return;
	connection->busy = false;
	connection->server->again = true;
	flume_answer(connection, &batch->call, flume_outcome(batch->worst));
}

/* ---- which streams ---- */

/* A topic as a message may have it. */
static char *
flume_shown(const FlumeHeader *topic)
{
	uint32 size = Min(topic->value_size, FLUME_SHOWN_TOPIC);
	char  *shown = pnstrdup(topic->value, size);

	for (uint32 i = 0; i < size; i++)
		if (shown[i] < ' ' || shown[i] > '~')
			shown[i] = '?';
	return shown;
}

/* As streamext_gateway_stream_named, of a name without a NUL behind it. */
static GatewayStream *
flume_named(Gateway *gateway, const char *name, Size size)
{
	for (int i = 0; i < gateway->nstreams; i++)
	{
		const char *key = gateway->streams[i].key;

		if (key != NULL && strlen(key) == size && memcmp(key, name, size) == 0)
			return &gateway->streams[i];
	}
	return NULL;
}

/* The stream of the event; NULL: none takes it, and *error says so. */
static GatewayStream *
flume_stream(Gateway *gateway, const FlumeEvent *event, char **error)
{
	FlumeHeader	   topic;
	GatewayStream *stream = NULL;
	bool		   named = streamext_flume_head_find(event->head->data, event->head->len, "topic", &topic);

	if (named)
		stream = flume_named(gateway, topic.value, topic.value_size);
	if (stream == NULL)
		stream = flume_named(gateway, "", 0);
	if (stream == NULL && named)
		*error = psprintf("no stream takes events with the header topic \"%s\"", flume_shown(&topic));
	else if (stream == NULL)
		*error = pstrdup("no stream takes events without the header topic");
	return stream;
}

static FlumePart *
flume_part(FlumeBatch *batch, GatewayStream *stream)
{
	FlumePart *part;
	ListCell  *lc;

	foreach (lc, batch->parts)
		if (((FlumePart *) lfirst(lc))->base.relid == stream->config->relid)
			return lfirst(lc);
	part = palloc0(sizeof(FlumePart));
	part->batch = batch;
	part->base.relid = stream->config->relid;
	part->base.done = flume_done;
	initStringInfo(&part->block);
	initStringInfo(&part->common);
	appendStringInfoString(&part->common, stream->key[0] != '\0' ? stream->key : FLUME_NO_TOPIC);
	appendStringInfoChar(&part->common, '\0');
	streamext_flume_recall(batch->connection->server->taken, stream);
	batch->parts = lappend(batch->parts, part);
	return part;
}

/* Puts all events into parts. NULL, or why the batch is not to be taken; *fault: because it is none. */
static const char *
flume_sort(FlumeBatch *batch, bool *fault)
{
	FlumeServer	  *server = batch->connection->server;
	StringInfoData head;
	FlumeEvent	   event = { .head = &head };
	const char	  *wrong = NULL;
	int			   events = 0;

	initStringInfo(&head);
	*fault = false;
	while (server->protocol->next(&batch->call, &event, &wrong))
	{
		char		  *error;
		GatewayStream *stream = flume_stream(server->gateway, &event, &error);

		if (stream == NULL)
			return error;
		streamext_block_add(&flume_part(batch, stream)->block, event.body, event.body_size, head.data, head.len);
		batch->size += event.body_size + head.len + 8;
		if (++events > FLUME_MAX_EVENTS || batch->size > 2 * (Size) FLUME_MAX_MESSAGE)
			return "the batch has too many events; send fewer at a time";
	}
	*fault = wrong != NULL;
	return wrong;
}

/* ---- what came before ---- */

/* A connection of the same sender whose last batch it was, and that has got no answer. */
static bool
flume_lost_before(const FlumeConnection *connection, const FlumeBatchId *id, FlumeTaken *taken)
{
	dlist_iter iter;

	dlist_foreach (iter, &connection->server->connections)
	{
		FlumeConnection *other = dlist_container(FlumeConnection, node, iter.cur);

		if (other == connection || other->last.nstreams == 0 || memcmp(&other->last.mark.id, id, sizeof(*id)) != 0 ||
			!streamext_flume_is_lost(other))
			continue;
		*taken = other->last;
		other->last.nstreams = 0;
		return true;
	}
	return false;
}

/*
 * connection->last becomes the batch at hand, whatever becomes of it; its streams are those that hold it already. A stream that was not ready when
 * the batch was refused may be by now, and its journal have been read. False: there is no memory.
 */
static bool
flume_identify(FlumeConnection *connection, const FlumeCall *call)
{
	TimestampTz	  now = GetCurrentTimestamp();
	Size		  size = call->end - call->events;
	FlumeTaken	  taken = { 0 }, before;
	bool		  first = connection->last.mark.at == 0, same;
	FlumeBatchId *id = &taken.mark.id;

	memcpy(id->address, connection->address, sizeof(id->address));
	if (!streamext_gateway_hmac("batch", 5, &call->events, &size, 1, id->digest))
		return false;
	same = !first && connection->refused && memcmp(id, &connection->last.mark.id, sizeof(*id)) == 0;
	if (same)
		taken = connection->last;
	if ((first || same) && (flume_lost_before(connection, id, &before) ||
							streamext_flume_taken_again(connection->server->taken, id, now, &before)))
		for (int i = 0; i < before.nstreams; i++)
			streamext_flume_taken_add(&taken, before.streams[i]);
	taken.mark.connection = connection->number;
	taken.mark.at = same ? connection->last.mark.at : now; /* parts that come later bear the same mark */
	connection->last = taken;
	return true;
}

/* ---- the batch ---- */

static void
flume_submit(FlumeBatch *batch)
{
	FlumeConnection *connection = batch->connection;
	Gateway			*gateway = connection->server->gateway;
	List			*wanted = NIL;
	ListCell		*lc;

	foreach (lc, batch->parts)
		if (!streamext_flume_taken_holds(&connection->last, ((FlumePart *) lfirst(lc))->base.relid))
			wanted = lappend(wanted, lfirst(lc));
	batch->waits = list_length(wanted);
	batch->worst = GATEWAY_TAKEN;
	if (wanted == NIL)
	{
		pg_atomic_fetch_add_u64(&gateway->slot->requests, 1);
		flume_answer(connection, &batch->call, NULL);
		return;
	}
	connection->busy = true;
	batch->call.name =
		pnstrdup(batch->call.name, batch->call.name_size); /* the answer repeats it when the message is gone */
	foreach (lc, wanted)
	{
		FlumePart *part = lfirst(lc);

		appendBinaryStringInfo(&part->common, (char *) &connection->last.mark, sizeof(FlumeMark));
		part->base.common = part->common.data;
		part->base.common_size = part->common.len;
		part->base.block = part->block.data;
		part->base.block_size = part->block.len;
		streamext_gateway_submit(gateway, &part->base);
	}
}

void
streamext_flume_batch(FlumeConnection *connection)
{
	const FlumeProtocolOps *protocol = connection->server->protocol;
	FlumeBatch			   *batch = palloc0(sizeof(FlumeBatch));
	const FlumeCall		   *call = &batch->call;
	const char			   *error;
	bool					fault = true;

	batch->connection = connection;
	error = protocol->call(&batch->call, &connection->frame, !connection->spoke);
	connection->spoke = true;
	if (error == NULL && !call->none)
	{
		error = flume_sort(batch, &fault);
		if (!flume_identify(connection, call) && error == NULL)
			error = "out of memory";
	}
	if (error == NULL)
	{
		flume_submit(batch);
		return;
	}
	connection->doomed = fault;
	flume_refuse(connection, call, error);
}
