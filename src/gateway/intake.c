/*
 * gateway/intake.c
 *		From what protocols have received to the streams' journals: a round's requests of a stream are one append, and one fsync.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/fault.h"
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

/* Keys mean what the journal's end says, so it must be known before they are looked at. What goes wrong here the append will tell. */
static void
intake_find_end(const JournalPlace *place)
{
	LWLockAcquire(place->lock, LW_EXCLUSIVE);
	if (pg_atomic_read_u64(place->end) == (uint64) -1)
		streamext_journal_close(streamext_journal_open(place, true));
	LWLockRelease(place->lock);
}

bool
streamext_gateway_place(GatewayStream *stream)
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
	stream->place = streamext_stream_journal(slot, stream->config->relid, 0, stream->config->source.journal);
	PopActiveSnapshot();
	CommitTransactionCommand();
	MemoryContextSwitchTo(old);
	intake_find_end(&stream->place);
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

static void
intake_report(Gateway *gateway, const GatewayStream *stream, int error)
{
	if (error == JOURNAL_AT_LIMIT)
		streamext_gateway_error(gateway, "the journal of stream \"%s\" has reached streamext.journal_limit",
								stream->config->name);
	else
		streamext_gateway_error(gateway, "could not write to the journal of stream \"%s\": %s", stream->config->name,
								strerror(error));
}

static GatewayOutcome
intake_append(Gateway *gateway, GatewayStream *stream, const JournalRecord *records, int n)
{
	StreamAppend result;
	int			 error;

	result = streamext_stream_append(&streamext_shared->streams[stream->slot], &stream->place, records, n);
	error = errno;
	if (result == STREAM_APPENDED)
		streamext_wake_worker(&streamext_shared->streams[stream->slot]);
	else if (result == STREAM_APPEND_GONE)
		stream->slot = -1;
	else
		intake_report(gateway, stream, error);
	return intake_outcome(result, error);
}

/* Looks a request's key up; *keyed: keys of the group have begun. */
static void
intake_look_up(GatewayStream *stream, GatewayRequest *request, TimestampTz now, bool *keyed, int *error)
{
	request->key_state = KEY_NEW;
	if (!request->keyed)
		return;
	if (!*keyed && *error == 0)
	{
		*keyed = streamext_keys_begin(stream->config->relid, &stream->place);
		if (!*keyed)
			*error = errno;
	}
	request->key_state = KEY_FAILED;
	if (*keyed)
		request->key_state = streamext_keys_note(request->role, request->key, request->body, now);
}

/* Whose turn it is: as many as one append takes; *n of them are appended, as their key_state says. */
static int
intake_choose(GatewayStream *stream, JournalRecord *records, int *n, bool *keyed, int *error)
{
	TimestampTz now = streamext_clock_now(), real = GetCurrentTimestamp();
	uint64		bytes = 0;
	int			taken = 0;

	for (GatewayRequest *request = stream->first; request != NULL && *n < INTAKE_APPEND && bytes < INTAKE_BYTES;
		 request = request->next, taken++)
	{
		JournalRecord *record = &records[*n];

		intake_look_up(stream, request, real, keyed, error);
		if (request->key_state != KEY_NEW)
			continue;
		memset(record, 0, sizeof(JournalRecord));
		record->timestamp = now;
		record->topic = request->common;
		record->topic_size = request->common_size;
		record->payload = request->block;
		record->payload_size = request->block_size;
		bytes += request->block_size;
		(*n)++;
	}
	return taken;
}

static GatewayOutcome
intake_of(const GatewayRequest *request, GatewayOutcome group)
{
	switch (request->key_state)
	{
		case KEY_NEW:
		case KEY_NOTED:
			return group;
		case KEY_TAKEN:
			return GATEWAY_TAKEN;
		case KEY_OTHER:
			return GATEWAY_OTHER;
		case KEY_FAILED:
			break;
	}
	return GATEWAY_REFUSED;
}

/* Tells the first of those that wait, and forgets them. */
static void
intake_tell(GatewayStream *stream, int n, bool placed, GatewayOutcome outcome)
{
	for (int i = 0; i < n; i++)
	{
		GatewayRequest *request = stream->first;

		stream->first = request->next;
		request->done(request, placed ? intake_of(request, outcome) : outcome);
	}
	stream->nrequests -= n;
	if (stream->first == NULL)
		stream->last = &stream->first;
}

/* The first of those that wait, as many as one append takes. Their keys are on disk before they are. */
static void
intake_group(Gateway *gateway, GatewayStream *stream)
{
	static JournalRecord records[INTAKE_APPEND];
	GatewayOutcome		 outcome = GATEWAY_TAKEN;
	bool				 keyed = false;
	int					 taken, n = 0, error = 0;

	if (!streamext_gateway_place(stream))
	{
		intake_tell(stream, stream->nrequests, false, GATEWAY_NO_STREAM);
		return;
	}
	taken = intake_choose(stream, records, &n, &keyed, &error);
	if (error == 0 && n > 0 && keyed && !streamext_keys_write())
	{
		error = errno;
		outcome = intake_outcome(STREAM_APPEND_FAILED, error);
	}
	else if (n > 0)
	{
		STREAMEXT_FAULT("gateway-before-append");
		outcome = intake_append(gateway, stream, records, n);
		STREAMEXT_FAULT("gateway-after-append");
	}
	if (error != 0)
		intake_report(gateway, stream, error);
	if (keyed)
		streamext_keys_end(outcome == GATEWAY_TAKEN);
	intake_tell(stream, taken, true, outcome);
}

void
streamext_gateway_commit(Gateway *gateway)
{
	for (int i = 0; i < gateway->nstreams; i++)
		while (gateway->streams[i].first != NULL)
			intake_group(gateway, &gateway->streams[i]);
}
