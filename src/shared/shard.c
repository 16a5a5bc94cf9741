/*
 * shared/shard.c
 *		What is done alike by a worker and by the rooms below it with a shard's views. What the functions promise is in shared/shard.h.
 */
#include "base/streamext.h"

#include "utils/timestamp.h"

#include "shared/shard.h"

void
streamext_shard_view_begin_behind(WorkerView *v)
{
	if (v->max_event_time != NULL)
		return;
	v->max_event_time = MemoryContextAlloc(v->cxt, sizeof(TimestampTz) * STREAMEXT_MAX_PARTITIONS);
	for (int i = 0; i < STREAMEXT_MAX_PARTITIONS; i++)
		v->max_event_time[i] = DT_NOBEGIN;
	v->watermark = DT_NOBEGIN;
}
