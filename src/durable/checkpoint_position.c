/*
 * durable/checkpoint_position.c
 *		The position row of a checkpoint (durable/checkpoint_log.h): as bytes, and what it says of a view.
 *
 * The format on disk stays as it is: what is new comes last in the row, and rows without it are those of builds before.
 */
#include "base/streamext.h"

#include "durable/checkpoint_log.h"

#define POSITION_MAGIC 0x31435853 /* SXC1 */
#define POSITION_FORMAT 5
#define POSITION_VERSION (POSITION_FORMAT * 1000 + PG_VERSION_NUM / 10000)

static void
encode_topic(StringInfo to, const char *topic, const char *former)
{
	uint16 size = strcmp(topic, former) == 0 ? 0 : strlen(topic);

	appendBinaryStringInfo(to, (char *) &size, sizeof(size));
	appendBinaryStringInfo(to, topic, size);
}

void
streamext_checkpoint_encode(StringInfo to, const CheckpointPosition *position)
{
	CheckpointPositionHead head = position->head;
	int					   n = head.npartitions;
	const char			  *former = "";

	head.magic = POSITION_MAGIC;
	head.version = POSITION_VERSION;
	appendBinaryStringInfo(to, (char *) &head, sizeof(head));
	for (int i = 0; i < n; i++)
	{
		const CheckpointPartition *partition = &position->partitions[i];

		encode_topic(to, partition->topic, former);
		former = partition->topic;
		appendBinaryStringInfo(to, (const char *) &partition->partition,
							   sizeof(*partition) - offsetof(CheckpointPartition, partition));
	}
	for (int i = 0; i < head.nviews; i++)
	{
		const CheckpointView *view = &position->views[i];

		appendBinaryStringInfo(to, (const char *) &view->head, sizeof(view->head));
		appendBinaryStringInfo(to, (const char *) view->positions, sizeof(int64) * n);
		if (view->head.behind)
			appendBinaryStringInfo(to, (const char *) view->max_event_time, sizeof(TimestampTz) * n);
	}
	/* builds before this one wrote no tombstones, and nothing at all where there is no mark */
	if (position->mark_size > 0 || position->tombstones > 0)
		appendBinaryStringInfo(to, (const char *) &position->mark_size, sizeof(position->mark_size));
	if (position->mark_size > 0)
		appendBinaryStringInfo(to, position->mark, position->mark_size);
	if (position->tombstones > 0)
		appendBinaryStringInfo(to, (const char *) &position->tombstones, sizeof(position->tombstones));
}

typedef struct DecodeInput
{
	const char *data;
	Size		left;
	bool		short_of;
} DecodeInput;

static void
decode_bytes(DecodeInput *in, void *to, Size size)
{
	if (in->left < size)
	{
		in->short_of = true;
		memset(to, 0, size);
		return;
	}
	memcpy(to, in->data, size);
	in->data += size;
	in->left -= size;
}

static void
decode_partition(DecodeInput *in, CheckpointPartition *partition, const CheckpointPartition *former)
{
	uint16 size;

	decode_bytes(in, &size, sizeof(size));
	memset(partition->topic, 0, sizeof(partition->topic));
	if (size >= sizeof(partition->topic))
		in->short_of = true;
	else if (size > 0)
		decode_bytes(in, partition->topic, size);
	else if (former != NULL)
		memcpy(partition->topic, former->topic, sizeof(partition->topic));
	decode_bytes(in, &partition->partition, sizeof(*partition) - offsetof(CheckpointPartition, partition));
}

static void
decode_mark(DecodeInput *in, CheckpointPosition *position)
{
	decode_bytes(in, &position->mark_size, sizeof(position->mark_size));
	if (position->mark_size > CHECKPOINT_MARK_BYTES || (position->mark_size == 0 && in->left == 0))
		in->short_of = true;
	else if (position->mark_size > 0)
	{
		position->mark = palloc(position->mark_size);
		decode_bytes(in, position->mark, position->mark_size);
	}
	if (in->left > 0)
		decode_bytes(in, &position->tombstones, sizeof(position->tombstones));
}

CheckpointPosition *
streamext_checkpoint_decode(const char *data, Size size)
{
	DecodeInput			in = { data, size, false };
	CheckpointPosition *position = palloc0(sizeof(CheckpointPosition));
	int					n;

	decode_bytes(&in, &position->head, sizeof(position->head));
	n = position->head.npartitions;
	if (in.short_of || position->head.magic != POSITION_MAGIC || position->head.version / 1000 != POSITION_FORMAT ||
		n < 0 || n > STREAMEXT_MAX_PARTITIONS || position->head.nviews < 0 ||
		position->head.nviews > in.left / sizeof(CheckpointViewHead))
		return NULL;
	position->partitions = palloc(sizeof(CheckpointPartition) * Max(n, 1));
	position->views = palloc0(sizeof(CheckpointView) * Max(position->head.nviews, 1));
	for (int i = 0; i < n; i++)
		decode_partition(&in, &position->partitions[i], i > 0 ? &position->partitions[i - 1] : NULL);
	for (int i = 0; i < position->head.nviews; i++)
	{
		CheckpointView *view = &position->views[i];

		decode_bytes(&in, &view->head, sizeof(view->head));
		view->positions = palloc(sizeof(int64) * Max(n, 1));
		decode_bytes(&in, view->positions, sizeof(int64) * n);
		if (view->head.behind)
		{
			view->max_event_time = palloc(sizeof(TimestampTz) * Max(n, 1));
			decode_bytes(&in, view->max_event_time, sizeof(TimestampTz) * n);
		}
	}
	/* After pg_upgrade: positions mean what they did; states are of PostgreSQL's version, so of no definition that is now. */
	if (position->head.version != POSITION_VERSION)
		for (int i = 0; i < position->head.nviews; i++)
			position->views[i].head.definition = 0;
	if (in.left > 0)
		decode_mark(&in, position);
	return in.short_of || in.left > 0 ? NULL : position;
}

CheckpointView *
streamext_checkpoint_find_view(const CheckpointPosition *position, Oid viewoid)
{
	if (position != NULL)
		for (int i = 0; i < position->head.nviews; i++)
			if (position->views[i].head.viewoid == viewoid)
				return &position->views[i];
	return NULL;
}

TimestampTz
streamext_checkpoint_settled(const CheckpointPosition *position, const CheckpointView *view)
{
	if (view == NULL || view->head.behind)
		return DT_NOBEGIN;
	for (int i = 0; i < position->head.npartitions; i++)
		if (view->positions[i] < position->partitions[i].position)
			return DT_NOBEGIN;
	return position->head.watermark;
}
