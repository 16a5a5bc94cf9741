/*
 * gateway/intake.c
 *		From what protocols have received to the streams' journals: a round's requests of a stream are one append, and one fsync.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"

#include "durable/journal_base.h"
#include "gateway/gateway.h"
#include "shared/clock.h"

#define INTAKE_APPEND 1024				/* requests an append, and */
#define INTAKE_BYTES (32 * 1024 * 1024) /* their bytes, before it takes no more */

void
streamext_gateway_submit(Gateway *gateway, GatewayRequest *request)
{
	GatewayStream *stream = streamext_gateway_stream(gateway, request->relid);

	Assert(request->block_size > 0);
	request->next = NULL;
	pg_atomic_fetch_add_u64(&gateway->slot->requests, 1);
	if (stream == NULL)
	{
		request->done(request, GATEWAY_NO_STREAM);
		return;
	}
	*stream->last = request;
	stream->last = &request->next;
	stream->nrequests++;
}

/* Where the stream's journal is; false: the stream has no slot, its worker's launcher has not come to it. */
static bool
intake_place(GatewayStream *stream)
{
	MemoryContext old = CurrentMemoryContext;
	StreamSlot	 *slot;

	if (stream->slot >= 0)
		return true;
	stream->slot = streamext_find_stream(MyDatabaseId, stream->config->relid, 0);
	if (stream->slot < 0)
		return false;
	slot = &streamext_shared->streams[stream->slot];
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	stream->place = streamext_stream_journal(slot, stream->config->relid, 0, stream->config->journal);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	return true;
}

static GatewayOutcome
intake_outcome(StreamAppend result, int error)
{
	if (result == STREAM_APPENDED)
		return GATEWAY_TAKEN;
	if (result == STREAM_APPEND_GONE)
		return GATEWAY_NO_STREAM;
	return error == JOURNAL_AT_LIMIT || error == ENOSPC || error == EDQUOT ? GATEWAY_FULL : GATEWAY_REFUSED;
}

static GatewayOutcome
intake_append(Gateway *gateway, GatewayStream *stream, const JournalRecord *records, int n)
{
	StreamAppend result = STREAM_APPEND_GONE;
	int			 error;

	if (intake_place(stream))
		result = streamext_stream_append(&streamext_shared->streams[stream->slot], &stream->place, records, n);
	error = errno;
	if (result == STREAM_APPENDED)
		streamext_wake_worker(&streamext_shared->streams[stream->slot]);
	else if (result == STREAM_APPEND_GONE)
		stream->slot = -1;
	else if (error == JOURNAL_AT_LIMIT)
		streamext_gateway_error(gateway, "the journal of stream \"%s\" has reached streamext.journal_limit",
								stream->config->name);
	else
		streamext_gateway_error(gateway, "could not write to the journal of stream \"%s\": %s", stream->config->name,
								strerror(error));
	return intake_outcome(result, error);
}

/* The first of those that wait, as many as one append takes. */
static void
intake_group(Gateway *gateway, GatewayStream *stream)
{
	static JournalRecord records[INTAKE_APPEND];
	GatewayRequest		*request = stream->first, *next;
	GatewayOutcome		 outcome;
	TimestampTz			 now = streamext_clock_now();
	uint64				 bytes = 0;
	int					 n = 0;

	for (; request != NULL && n < INTAKE_APPEND && bytes < INTAKE_BYTES; request = request->next)
	{
		memset(&records[n], 0, sizeof(JournalRecord));
		records[n].timestamp = now;
		records[n].topic = request->common;
		records[n].topic_size = request->common_size;
		records[n].payload = request->block;
		records[n++].payload_size = request->block_size;
		bytes += request->block_size;
	}
	outcome = intake_append(gateway, stream, records, n);
	request = stream->first;
	for (int i = 0; i < n; i++, request = next)
	{
		next = request->next;
		if (outcome == GATEWAY_TAKEN)
			request->end = (int64) pg_atomic_read_u64(stream->place.end);
		request->done(request, outcome);
	}
	stream->first = request;
	stream->nrequests -= n;
	if (request == NULL)
		stream->last = &stream->first;
}

void
streamext_gateway_commit(Gateway *gateway)
{
	for (int i = 0; i < gateway->nstreams; i++)
		while (gateway->streams[i].first != NULL)
			intake_group(gateway, &gateway->streams[i]);
}
