/*
 * state/buffer.c
 *		The last records of a stream for SELECT * FROM stream: a ring of bytes in one piece of chunk memory.
 *
 * Entries lie back to back in arrival order, 8-aligned, none split: one that does not fit before the ring's end starts at
 * its beginning, and `wrap` tells where the upper part ends then. Payload, key, topic and headers are copied behind the entry's
 * header; the payload is 8-aligned (rows of local streams are tuples). Everything is read and written under the lock that
 * the caller names (StreamSlot.buffer_lock).
 */
#include "base/streamext.h"

#include "state/buffer.h"
#include "base/chunk.h"
#include "base/layout.h"

#define BUFFER_RECORD_BYTES 512 /* assumed for a record's payload, key and topic */
#define BUFFER_LAYOUTS 8		/* kept; rows of older ones are passed over */
#define BUFFER_BYTES_MAX (16 * 1024 * 1024)
#define BUFFER_BYTES_MIN (16 * 1024)

typedef struct BufferEntry
{
	uint32		size; /* to the next entry, multiple of 8 */
	uint32		payload_size;
	uint32		key_size;
	uint32		topic_size;
	uint32		headers_size; /* with NUL; 0: none */
	int32		partition;
	int32		partition_index;
	int64		position;
	int64		next_position;
	TimestampTz timestamp;
	uint32		row_type_hash;
	uint32		layout; /* number; 0: none */
	uint8		qos;
	bool		retained;
	bool		has_payload;
	bool		has_key;
	char		data[FLEXIBLE_ARRAY_MEMBER]; /* from an 8-aligned offset on: payload, key, topic, NUL, headers, NUL */
} BufferEntry;

#define BUFFER_ENTRY_HEADER MAXALIGN(offsetof(BufferEntry, data))

struct StreamBuffer
{
	int	   max_records;
	int	   nrecords;
	uint32 capacity; /* of data */
	uint32 head;	 /* oldest entry */
	uint32 tail;	 /* where the next one goes */
	uint32 wrap;	 /* end of the upper part while tail <= head and nrecords > 0 */
	uint32 layout;	 /* number of the newest; number n is layouts[n % BUFFER_LAYOUTS], if n > layout - BUFFER_LAYOUTS */
	RowLayout *layouts[BUFFER_LAYOUTS];
	char	   data[FLEXIBLE_ARRAY_MEMBER];
};

#define BUFFER_DATA(buffer) ((char *) (buffer) + MAXALIGN(offsetof(StreamBuffer, data)))

StreamBuffer *
streamext_buffer_create(int buffer_size)
{
	Size		  header = MAXALIGN(offsetof(StreamBuffer, data));
	Size		  size, actual;
	StreamBuffer *buffer;

	if (buffer_size <= 0)
		return NULL;
	size = header + (Size) buffer_size * (BUFFER_ENTRY_HEADER + BUFFER_RECORD_BYTES);
	size = Max(size, BUFFER_BYTES_MIN);
	size = Min(size, BUFFER_BYTES_MAX);
	size = Min(size, streamext_chunk_total() / 4);
	if (size < header + BUFFER_ENTRY_HEADER)
		return NULL;
	buffer = streamext_chunk_alloc(size, &actual);
	if (buffer == NULL)
		return NULL;
	memset(buffer, 0, header);
	buffer->max_records = buffer_size;
	buffer->capacity = (uint32) ((actual - header) & ~(Size) 7);
	return buffer;
}

void
streamext_buffer_destroy(StreamBuffer *buffer)
{
	if (buffer == NULL)
		return;
	for (int i = 0; i < BUFFER_LAYOUTS; i++)
		if (buffer->layouts[i] != NULL)
			streamext_chunk_free(buffer->layouts[i]);
	streamext_chunk_free(buffer);
}

static Size
buffer_entry_size(const StreamRecord *record)
{
	return MAXALIGN(BUFFER_ENTRY_HEADER + (Size) (record->payload ? record->payload_size : 0) +
					(record->key ? record->key_size : 0) + (record->topic ? strlen(record->topic) : 0) + 1 +
					(record->headers ? strlen(record->headers) + 1 : 0));
}

static void
buffer_drop_oldest(StreamBuffer *buffer)
{
	BufferEntry *entry = (BufferEntry *) (BUFFER_DATA(buffer) + buffer->head);
	bool		 wrapped = buffer->tail <= buffer->head;

	buffer->head += entry->size;
	if (wrapped && buffer->head == buffer->wrap)
		buffer->head = 0;
	if (--buffer->nrecords == 0)
		buffer->head = buffer->tail = 0;
}

/* Room for size bytes at tail, older entries given up for it. size <= capacity. */
static char *
buffer_make_room(StreamBuffer *buffer, uint32 size)
{
	while (buffer->nrecords >= buffer->max_records)
		buffer_drop_oldest(buffer);
	for (;;)
	{
		if (buffer->nrecords == 0)
			buffer->head = buffer->tail = 0;
		if (buffer->nrecords == 0 || buffer->tail > buffer->head)
		{
			if (buffer->capacity - buffer->tail >= size)
				return BUFFER_DATA(buffer) + buffer->tail;
			if (buffer->head >= size)
			{
				buffer->wrap = buffer->tail;
				buffer->tail = 0;
				return BUFFER_DATA(buffer);
			}
		}
		else if (buffer->head - buffer->tail >= size)
			return BUFFER_DATA(buffer) + buffer->tail;
		buffer_drop_oldest(buffer);
	}
}

static bool
buffer_has_layout(const StreamBuffer *buffer, uint32 number, const RowLayout *layout)
{
	const RowLayout *kept = buffer->layouts[number % BUFFER_LAYOUTS];

	return number > 0 && kept != NULL && streamext_layout_equal(kept, layout);
}

/* The number of a layout, which is kept; 0: there is no memory for it. */
static uint32
buffer_layout(StreamBuffer *buffer, const RowLayout *layout)
{
	RowLayout *copy;
	Size	   actual;

	for (uint32 i = 0; i < Min(buffer->layout, BUFFER_LAYOUTS); i++)
		if (buffer_has_layout(buffer, buffer->layout - i, layout))
			return buffer->layout - i;
	copy = streamext_chunk_alloc(layout->size, &actual);
	if (copy == NULL)
		return 0;
	memcpy(copy, layout, layout->size);
	buffer->layout++;
	if (buffer->layouts[buffer->layout % BUFFER_LAYOUTS] != NULL)
		streamext_chunk_free(buffer->layouts[buffer->layout % BUFFER_LAYOUTS]);
	buffer->layouts[buffer->layout % BUFFER_LAYOUTS] = copy;
	return buffer->layout;
}

static void
buffer_put(StreamBuffer *buffer, const StreamRecord *record, uint32 size)
{
	BufferEntry *entry = (BufferEntry *) buffer_make_room(buffer, size);
	char		*data = (char *) entry + BUFFER_ENTRY_HEADER;

	entry->size = size;
	entry->has_payload = record->payload != NULL;
	entry->payload_size = record->payload ? record->payload_size : 0;
	entry->has_key = record->key != NULL;
	entry->key_size = record->key ? record->key_size : 0;
	entry->topic_size = record->topic ? strlen(record->topic) : 0;
	entry->partition = record->partition;
	entry->partition_index = record->partition_index;
	entry->position = record->position;
	entry->next_position = record->next_position;
	entry->timestamp = record->timestamp;
	entry->row_type_hash = record->row_type_hash;
	entry->layout = record->layout != NULL ? buffer_layout(buffer, record->layout) : 0;
	entry->qos = record->qos;
	entry->retained = record->retained;
	if (entry->payload_size > 0)
		memcpy(data, record->payload, entry->payload_size);
	data += entry->payload_size;
	if (entry->key_size > 0)
		memcpy(data, record->key, entry->key_size);
	data += entry->key_size;
	if (entry->topic_size > 0)
		memcpy(data, record->topic, entry->topic_size);
	data[entry->topic_size] = '\0';
	entry->headers_size = record->headers ? strlen(record->headers) + 1 : 0;
	if (entry->headers_size > 0)
		memcpy(data + entry->topic_size + 1, record->headers, entry->headers_size);

	buffer->tail += size;
	buffer->nrecords++;
}

void
streamext_buffer_append(StreamBuffer *buffer, LWLock *lock, const StreamRecord *records, const bool *accepted, int n)
{
	int	 first = n, kept = 0;
	Size bytes = 0;
	bool replace = false; /* what is there is older than what is left out now */

	if (buffer == NULL || n <= 0)
		return;

	/* Only what will still be there afterwards is worth copying. */
	while (first > 0 && kept < buffer->max_records)
	{
		Size size;

		if (accepted == NULL || accepted[first - 1])
		{
			size = buffer_entry_size(&records[first - 1]);
			if (size <= buffer->capacity)
			{
				if (bytes + size > buffer->capacity)
				{
					replace = true;
					break;
				}
				bytes += size;
				kept++;
			}
		}
		first--;
	}

	LWLockAcquire(lock, LW_EXCLUSIVE);
	if (replace)
		buffer->nrecords = 0;
	for (int i = first; i < n; i++)
	{
		Size size;

		if (accepted != NULL && !accepted[i])
			continue;
		size = buffer_entry_size(&records[i]);
		if (size <= buffer->capacity) /* else larger than the whole buffer */
			buffer_put(buffer, &records[i], (uint32) size);
	}
	LWLockRelease(lock);
}

/* What a reader takes along of the layouts, with the lock held. */
typedef struct BufferLayouts
{
	uint32			 newest;
	RowLayout		*copies[BUFFER_LAYOUTS];
	const RowLayout *interned[BUFFER_LAYOUTS];
} BufferLayouts;

static void
buffer_copy_layouts(const StreamBuffer *buffer, BufferLayouts *layouts)
{
	memset(layouts, 0, sizeof(*layouts));
	layouts->newest = buffer->layout;
	for (int i = 0; i < BUFFER_LAYOUTS; i++)
		if (buffer->layouts[i] != NULL)
			layouts->copies[i] = memcpy(palloc(buffer->layouts[i]->size), buffer->layouts[i], buffer->layouts[i]->size);
}

/* NULL: none, or not kept any more. */
static const RowLayout *
buffer_find_layout(const BufferLayouts *layouts, uint32 number)
{
	if (number == 0 || layouts->newest - number >= BUFFER_LAYOUTS)
		return NULL;
	return layouts->interned[number % BUFFER_LAYOUTS];
}

/* An entry of the private copy as a record that points into it. */
static void
buffer_entry_record(BufferEntry *entry, const BufferLayouts *layouts, StreamRecord *record)
{
	char *data = (char *) entry + BUFFER_ENTRY_HEADER;

	memset(record, 0, sizeof(*record));
	record->payload = entry->has_payload ? data : NULL;
	record->payload_size = entry->payload_size;
	data += entry->payload_size;
	record->key = entry->has_key ? data : NULL;
	record->key_size = entry->key_size;
	record->topic = data + entry->key_size;
	record->headers = entry->headers_size > 0 ? record->topic + entry->topic_size + 1 : NULL;
	record->partition = entry->partition;
	record->partition_index = entry->partition_index;
	record->position = entry->position;
	record->next_position = entry->next_position;
	record->timestamp = entry->timestamp;
	record->qos = entry->qos;
	record->retained = entry->retained;
	record->row_type_hash = entry->row_type_hash;
	record->layout = buffer_find_layout(layouts, entry->layout);
}

int
streamext_buffer_copy(StreamBuffer *buffer, LWLock *lock, StreamRecord **records)
{
	char		 *copy;
	uint32		  upper = 0, lower = 0;
	int			  n;
	BufferLayouts layouts;

	*records = NULL;
	if (buffer == NULL)
		return 0;

	/* Taken beforehand at full size (untouched pages cost nothing), so that the lock is held for two memcpy only. */
	copy = palloc(buffer->capacity);
	LWLockAcquire(lock, LW_SHARED);
	n = buffer->nrecords;
	if (n > 0)
	{
		bool wrapped = buffer->tail <= buffer->head;

		upper = (wrapped ? buffer->wrap : buffer->tail) - buffer->head;
		memcpy(copy, BUFFER_DATA(buffer) + buffer->head, upper);
		if (wrapped)
		{
			lower = buffer->tail;
			memcpy(copy + upper, BUFFER_DATA(buffer), lower);
		}
		buffer_copy_layouts(buffer, &layouts);
	}
	LWLockRelease(lock);
	if (n == 0)
	{
		pfree(copy);
		return 0;
	}

	for (int i = 0; i < BUFFER_LAYOUTS; i++)
		if (layouts.copies[i] != NULL)
			layouts.interned[i] = streamext_layout_intern(layouts.copies[i], layouts.copies[i]->size);
	*records = palloc(sizeof(StreamRecord) * n);
	for (int i = 0; i < n; i++)
	{
		buffer_entry_record((BufferEntry *) copy, &layouts, &(*records)[i]);
		copy += ((BufferEntry *) copy)->size;
	}
	return n;
}
