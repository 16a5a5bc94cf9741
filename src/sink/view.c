/*
 * sink/view.c
 *		Rows of closed windows into the stream of a continuous view that reads them (view/inner.h): into its journal, when the transaction commits
 *		that counts them as given.
 */
#include "base/streamext.h"

#include "access/detoast.h"
#include "access/htup_details.h"
#include "executor/spi.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

#include "sink/sink.h"
#include "sink/spool.h"
#include "stream/definition.h"

#define VIEW_FETCH 1000 /* rows at a time */

static Sink *
view_open_sink(Sink *sink)
{
	Sink *own = palloc(sizeof(Sink));

	*own = *sink;
	return own;
}

/* Every value flat and in one piece: it outlives whatever it points to now. */
static void
view_put_row(RowSpool *spool, const StreamConfig *config, HeapTuple tuple, TupleDesc desc, Datum *values, bool *nulls)
{
	heap_deform_tuple(tuple, desc, values, nulls);
	for (int i = 0; i < desc->natts; i++)
		if (!nulls[i] && TupleDescAttr(desc, i)->attlen == -1 &&
			(VARATT_IS_EXTERNAL(DatumGetPointer(values[i])) || VARATT_IS_COMPRESSED(DatumGetPointer(values[i]))))
			values[i] = PointerGetDatum(PG_DETOAST_DATUM(values[i]));
	if (heap_compute_data_size(config->desc, values, nulls) >
		STREAMEXT_MAX_RECORD - MAXALIGN(SizeofMinimalTupleHeader + BITMAPLEN(config->desc->natts)))
		ereport(ERROR, (errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
						errmsg("a row is too large for continuous view \"%s\" over it", config->name),
						errdetail("A row may have %d bytes.", STREAMEXT_MAX_RECORD)));
	streamext_spool_put(spool, values, nulls);
}

static uint64
view_rows(Sink *sink, const char *query, const char *columns)
{
	StreamConfig *config = streamext_stream_config(sink->target);
	RowSpool	 *spool;
	MemoryContext row_cxt = AllocSetContextCreate(CurrentMemoryContext, "streamext window row", ALLOCSET_DEFAULT_SIZES);
	SPIPlanPtr	  plan;
	Portal		  portal;
	Datum		 *values;
	bool		 *nulls;
	uint64		  rows = 0;

	if (config == NULL)
		ereport(ERROR, (errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
						errmsg("the view that takes windows of \"%s\" is gone", get_rel_name(sink->view))));
	spool = streamext_spool_get(config);
	values = palloc(sizeof(Datum) * Max(config->desc->natts, 1));
	nulls = palloc(sizeof(bool) * Max(config->desc->natts, 1));
	plan = SPI_prepare(query, 0, NULL);
	if (plan == NULL)
		elog(ERROR, "could not prepare a query on windows: %s", SPI_result_code_string(SPI_result));
	portal = SPI_cursor_open(NULL, plan, NULL, NULL, true);
	for (;;)
	{
		SPI_cursor_fetch(portal, true, VIEW_FETCH);
		if (SPI_processed == 0)
			break;
		for (uint64 i = 0; i < SPI_processed; i++)
		{
			MemoryContext old = MemoryContextSwitchTo(row_cxt);

			view_put_row(spool, config, SPI_tuptable->vals[i], SPI_tuptable->tupdesc, values, nulls);
			MemoryContextSwitchTo(old);
			MemoryContextReset(row_cxt);
		}
		rows += SPI_processed;
		SPI_freetuptable(SPI_tuptable);
	}
	SPI_cursor_close(portal);
	MemoryContextDelete(row_cxt);
	return rows;
}

const SinkOps streamext_view_sink = {
	.name = "view",
	.open = view_open_sink,
	.rows = view_rows,
};
