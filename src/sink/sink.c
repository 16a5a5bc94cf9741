/*
 * sink/sink.c
 *		Which sinks there are, and their life.
 */
#include "base/streamext.h"

#include "catalog/pg_class_d.h"
#include "utils/lsyscache.h"

#include "sink/outbox.h"
#include "sink/sink.h"
#include "stream/definition.h"

#define SINK(kind) &streamext_##kind##_sink,

static const SinkOps *const sinks[] = {
#include "sink/kinds.h"
};

#undef SINK

/* The sink that takes the target's rows; raises if there is none. Needs a transaction. */
static const SinkOps *
sink_of(Oid target)
{
	const ConnectorOps *connector =
		get_rel_relkind(target) == RELKIND_FOREIGN_TABLE ? streamext_stream_kind(target) : NULL;
	/* what INSERT can put into a stream comes with the transaction that counts it, as with a table */
	const char *name = connector != NULL && connector->sink ? connector->name : streamext_table_sink.name;

	if (get_rel_relkind(target) == RELKIND_VIEW)
		return &streamext_view_sink;
	for (int i = 0; i < lengthof(sinks); i++)
		if (strcmp(sinks[i]->name, name) == 0)
			return sinks[i];
	elog(ERROR, "no sink takes rows for relation %u", target);
	return NULL; /* not reached */
}

void
streamext_sink_check(Oid view, Oid target)
{
	const SinkOps *ops = sink_of(target);

	streamext_outbox_check(target);
	if (ops->check != NULL)
		ops->check(view, target);
}

static void
sink_on_reset(void *arg)
{
	Sink *sink = arg;

	if (sink->ops->close != NULL)
		sink->ops->close(sink);
}

Sink *
streamext_sink_open(Oid view, Oid target, MemoryContext cxt)
{
	const SinkOps *ops = sink_of(target);
	MemoryContext  own = AllocSetContextCreate(cxt, "streamext sink", ALLOCSET_SMALL_SIZES);
	MemoryContext  old = MemoryContextSwitchTo(own);
	Sink		   head = { ops, view, target, own };
	Sink		  *sink = ops->open(&head);

	sink->callback.func = sink_on_reset;
	sink->callback.arg = sink;
	MemoryContextRegisterResetCallback(own, &sink->callback);
	MemoryContextSwitchTo(old);
	return sink;
}

void
streamext_sink_close(Sink *sink)
{
	MemoryContextDelete(sink->cxt);
}
