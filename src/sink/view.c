/*
 * sink/view.c
 *		Rows of closed windows into the stream of a continuous view that reads them (view/inner.h): into its journal, when the transaction commits
 *		that counts them as given.
 */
#include "base/streamext.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "executor/spi.h"
#include "tcop/dest.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "sink/sink.h"
#include "sink/spool.h"
#include "stream/definition.h"

/* Takes the rows of the query as they are made, without a copy in between. */
typedef struct ViewReceiver
{
	DestReceiver		pub;
	const StreamConfig *config;
	RowSpool		   *spool;
	MemoryContext		row_cxt;
} ViewReceiver;

static Sink *
view_open_sink(Sink *sink)
{
	Sink *own = palloc(sizeof(Sink));

	*own = *sink;
	return own;
}

static void
view_check_size(const StreamConfig *config, Datum *values, bool *nulls)
{
	if (heap_compute_data_size(config->desc, values, nulls) >
		STREAMEXT_MAX_RECORD - MAXALIGN(SizeofMinimalTupleHeader + BITMAPLEN(config->desc->natts)))
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("a row is too large for continuous view \"%s\" over it", config->name),
						errdetail("A row may have %d bytes.", STREAMEXT_MAX_RECORD)));
}

/* Every value flat and in one piece: it outlives whatever it points to now. */
static bool
view_receive(TupleTableSlot *slot, DestReceiver *self)
{
	ViewReceiver *receiver = (ViewReceiver *) self;
	TupleDesc	  desc = slot->tts_tupleDescriptor;
	MemoryContext old = MemoryContextSwitchTo(receiver->row_cxt);
	Datum		 *values;
	Size		  bytes = 0; /* of those whose size is not their type's */

	slot_getallattrs(slot);
	values = slot->tts_values;
	for (int i = 0; i < desc->natts; i++)
	{
		if (slot->tts_isnull[i] || TupleDescAttr(desc, i)->attlen != -1)
			continue;
		if (VARATT_IS_EXTERNAL(DatumGetPointer(values[i])) || VARATT_IS_COMPRESSED(DatumGetPointer(values[i])))
		{
			/* the slot's own values stay what they are */
			if (values == slot->tts_values)
				values = memcpy(palloc(sizeof(Datum) * desc->natts), values, sizeof(Datum) * desc->natts);
			values[i] = PointerGetDatum(PG_DETOAST_DATUM(values[i]));
		}
		bytes += VARSIZE_ANY(DatumGetPointer(values[i]));
	}
	if (bytes > STREAMEXT_MAX_RECORD / 2)
		view_check_size(receiver->config, values, slot->tts_isnull);
	streamext_spool_put(receiver->spool, values, slot->tts_isnull);
	MemoryContextSwitchTo(old);
	MemoryContextReset(receiver->row_cxt);
	return true;
}

static uint64
view_rows(Sink *sink, const char *query, const char *columns)
{
	StreamConfig	 *config = streamext_stream_config(sink->target);
	ViewReceiver	  receiver = { .pub = *None_Receiver };
	SPIExecuteOptions options = { .read_only = true, .dest = &receiver.pub };
	int				  rc;

	if (config == NULL)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("the view that takes windows of \"%s\" is gone", get_rel_name(sink->view))));
	receiver.pub.receiveSlot = view_receive;
	receiver.pub.mydest = DestTuplestore; /* any that keeps rows */
	receiver.config = config;
	receiver.spool = streamext_spool_get(config);
	receiver.row_cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext window row", ALLOCSET_DEFAULT_SIZES);
	rc = SPI_execute_extended(query, &options);
	if (rc != SPI_OK_SELECT)
		elog(ERROR, "could not read windows: %s", SPI_result_code_string(rc));
	MemoryContextDelete(receiver.row_cxt);
	return SPI_processed;
}

const SinkOps streamext_view_sink = {
	.name = "view",
	.open = view_open_sink,
	.rows = view_rows,
};
