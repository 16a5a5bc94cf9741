/*
 * sink/table.c
 *		Rows of closed windows into an ordinary table or a stream that takes INSERT: PostgreSQL's own INSERT, part of the transaction that counts them.
 */
#include "base/streamext.h"

#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

#include "base/relation.h"
#include "sink/sink.h"
#include "view/target.h"

static Sink *
table_open_sink(Sink *sink)
{
	Sink *own = palloc(sizeof(Sink));

	*own = *sink;
	return own;
}

static uint64
table_rows(Sink *sink, const char *query, const char *columns)
{
	char *table = streamext_relation_name(sink->target);
	int	  rc;

	streamext_into_check_at_once();
	rc = SPI_execute(psprintf("INSERT INTO %s (%s) %s", table, columns, query), false, 0);
	if (rc != SPI_OK_INSERT)
		elog(ERROR, "could not insert windows: %s", SPI_result_code_string(rc));
	return SPI_processed;
}

const SinkOps streamext_table_sink = {
	.name = "table",
	.open = table_open_sink,
	.rows = table_rows,
};
