/*
 * read/whole_counted.c
 *		How far a whole view has counted (read/whole.h): positions and counts, noted with the copies, under the same lock.
 *
 * A shard whose slot says nothing (its definition was never begun, or is another's) has counted nothing that the view shows.
 */
#include "base/streamext.h"

#include "read/whole.h"
#include "shared/shmem.h"

static WholePartition *
whole_add(WholeRead *whole, const char *topic, int32 partition)
{
	WholePartition *added;

	if (whole->npartitions == whole->capacity)
	{
		whole->capacity = Max(whole->capacity * 2, 64);
		whole->partitions = whole->partitions == NULL
								? palloc(sizeof(WholePartition) * whole->capacity)
								: repalloc(whole->partitions, sizeof(WholePartition) * whole->capacity);
	}
	added = &whole->partitions[whole->npartitions++];
	strlcpy(added->topic, topic, sizeof(added->topic));
	added->partition = partition;
	return added;
}

static void
whole_count(WholeRead *whole, TimestampTz watermark, uint64 accepted, uint64 late, uint64 rejected)
{
	whole->watermark = whole->nshards++ == 0 ? watermark : Min(whole->watermark, watermark);
	whole->accepted += accepted;
	whole->late += late;
	whole->rejected += rejected;
}

/*
 * Where the view is in a partition that its stream has read up to `reached`, from `start` on. A view that has read nothing of it is where the
 * stream began, if that has read nothing either.
 */
static int64
whole_position(WholeRead *whole, int64 position, int64 reached, int64 start)
{
	if (position < 0 && reached >= 0 && reached == start)
		return reached;
	whole->behind = whole->behind || position < reached;
	return position;
}

void
streamext_whole_note(WholeRead *whole, const StreamSlot *stream, const ViewSlot *slot, const ViewSlot *content)
{
	const StreamCounted *counted = &stream->counted;

	/* readers may take what was counted of other rows, until it is counted anew */
	if (content->counted.definition != whole->read->view->definition)
	{
		whole->former = true;
		return;
	}
	whole->behind = whole->behind || content != slot;
	whole_count(whole, counted->watermark, slot->counted.accepted, slot->counted.late, slot->counted.rejected);
	for (int i = 0; i < counted->npartitions; i++)
	{
		const PartitionSlot *from = &counted->partitions[i];
		int64				 position = i < slot->counted.npositions ? slot->counted.positions[i] : -1;
		WholePartition		*to = whole_add(whole, from->topic, from->partition);

		to->position = whole_position(whole, position, from->position, from->start_position);
		to->newest = from->max_event_time;
		to->arrival = from->last_arrival;
	}
}

void
streamext_whole_note_checkpoint(WholeRead *whole, const CheckpointPosition *position, const CheckpointView *view)
{
	if (view->head.definition != whole->read->view->definition)
	{
		whole->former = true;
		return;
	}
	whole_count(whole, position->head.watermark, view->head.accepted, view->head.late, view->head.rejected);
	for (int i = 0; i < position->head.npartitions; i++)
	{
		const CheckpointPartition *from = &position->partitions[i];
		WholePartition			  *to = whole_add(whole, from->topic, from->partition);

		to->position = whole_position(whole, view->positions[i], from->position, from->start_position);
		to->newest = from->max_event_time;
		to->arrival = position->head.taken_at;
	}
}
