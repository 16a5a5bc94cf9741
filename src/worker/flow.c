/*
 * worker/flow.c
 *		From where on a view over another one counts its closed windows. What the functions promise is in worker/flow.h.
 */
#include "base/streamext.h"

#include "access/xlog.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"

#include "durable/flow_position.h"
#include "durable/journal_base.h"
#include "view/inner.h"
#include "worker/flow.h"

static uint64
flow_number(const Worker *w, const CompiledView *view, int64 round)
{
	StringInfoData buf;
	uint64		   number;

	initStringInfo(&buf);
	appendStringInfo(&buf, UINT64_FORMAT " " UINT64_FORMAT " " INT64_FORMAT " %u", w->shard.config->from.inner_number,
					 view->definition, round, GetWALInsertionTimeLine());
	number = hash_bytes_extended((unsigned char *) buf.data, buf.len, 0);
	pfree(buf.data);
	return number == 0 ? 1 : number;
}

void
streamext_flow_ask(const Worker *w)
{
	LWLockAcquire(streamext_shared->registry_lock, LW_SHARED);
	for (int i = 0; i < streamext_shared->nviews; i++)
	{
		const ViewSlot *view = &streamext_shared->views[i];
		StreamSlot	   *stream = &streamext_shared->streams[view->id.stream];

		if (!view->id.in_use || view->id.retained || view->id.dboid != w->shard.identity.dboid ||
			view->id.viewoid != w->shard.config->from.inner || stream->id.shard != 0)
			continue;
		pg_atomic_write_u32(&stream->ask.windows_due, 1);
		streamext_wake_worker(stream);
	}
	LWLockRelease(streamext_shared->registry_lock);
}

void
streamext_flow_settle(Worker *w, WorkerView *v, const CompiledView *view, int64 round)
{
	uint64		 number = flow_number(w, view, round);
	FlowPosition position = streamext_flow_load(v->viewoid);

	if (position.number != number)
	{
		position.begins = Max(streamext_stream_journal_end(w->shard.slot, w->shard.config, 0), 0);
		/* what is in a table already is not put there twice */
		streamext_flow_begin(v->viewoid, number, w->shard.config->from.inner_number, position.begins, view->stateless);
	}
	w->flow_number = number;
	v->slot->counted.start_position = position.begins;
}

void
streamext_flow_started(Worker *w, WorkerView *v)
{
	if (v->slot->counted.npositions > 0 && v->slot->counted.positions[0] > v->slot->counted.start_position)
		return;
	streamext_stream_lock_exclusive(w->shard.slot);
	w->shard.slot->counted.watermark = DT_NOBEGIN;
	LWLockRelease(w->shard.slot->lock);
}
