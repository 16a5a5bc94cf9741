/*
 * sql/newest.c
 *		The records that a stream's buffer holds: for scans, and as they came for streamext.peek.
 */
#include "base/streamext.h"

#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/fmgrprotos.h"

#include "decode/decoder.h"
#include "shared/shmem.h"
#include "sql/control.h"
#include "sql/newest.h"
#include "stream/definition.h"

PG_FUNCTION_INFO_V1(streamext_get_newest);

int
streamext_newest_copy(Oid relid, int shard, StreamRecord **records)
{
	int			index = streamext_find_stream(MyDatabaseId, relid, shard);
	StreamSlot *slot;
	int			n = 0;

	if (index < 0)
		return 0;
	slot = &streamext_shared->streams[index];
	streamext_stream_lock_shared(slot);
	if (slot->id.in_use && slot->id.dboid == MyDatabaseId && slot->id.relid == relid && slot->id.shard == shard &&
		slot->buffer != NULL)
		n = streamext_buffer_copy(slot->buffer, slot->buffer_lock, records);
	LWLockRelease(slot->lock);
	return n;
}

void
streamext_newest_put(ReturnSetInfo *rsinfo, const StreamRecord *record, bool keys, bytea *payload)
{
	Datum values[7] = { 0 };
	bool  nulls[7] = { 0 };

	values[0] = CStringGetTextDatum(record->topic);
	values[1] = Int32GetDatum(record->partition);
	values[2] = Int64GetDatum(record->position);
	values[3] = TimestampTzGetDatum(record->timestamp);
	nulls[4] = record->key == NULL || !keys;
	if (!nulls[4])
		values[4] = PointerGetDatum(cstring_to_text_with_len(record->key, record->key_size)); /* bytea's layout */
	nulls[5] = record->headers == NULL;
	if (!nulls[5])
		values[5] = DirectFunctionCall1(json_in, CStringGetDatum(record->headers));
	nulls[6] = payload == NULL;
	values[6] = PointerGetDatum(payload);
	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
}

/* The newest n of each shard. */
Datum
streamext_get_newest(PG_FUNCTION_ARGS)
{
	Oid			   relid = PG_GETARG_OID(0);
	int			   n = PG_GETARG_INT32(1);
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	StreamConfig  *config;
	Decoder		  *decoder;

	(void) streamext_control_stream(relid, false);
	config = streamext_stream_config(relid);
	InitMaterializedSRF(fcinfo, 0);
	if (config == NULL)
		PG_RETURN_VOID();
	decoder = streamext_decoder_create(config, CurrentMemoryContext);
	for (int shard = 0; shard < config->workers; shard++)
	{
		StreamRecord *records;
		int			  count = streamext_newest_copy(relid, shard, &records);

		for (int i = Max(count - Max(n, 0), 0); i < count; i++)
			streamext_newest_put(rsinfo, &records[i], streamext_connector_has_keys(config->connector),
								 streamext_decoder_payload(decoder, &records[i]));
	}
	streamext_decoder_free(decoder);
	PG_RETURN_VOID();
}
