/*
 * gateway/watch.c
 *		The gateway's side of watching views. What the functions promise is in gateway/watch.h.
 *
 * The list of what is watched lies in the segment, under a spinlock; the watcher looks at it when its latch is set. Its queue is never waited
 * for. When the process is gone all watches have ended, and the next listener starts another one.
 */
#include "base/streamext.h"

#include "miscadmin.h"
#include "storage/dsm.h"
#include "storage/shm_mq.h"
#include "utils/memutils.h"

#include "base/background.h"
#include "gateway/watch.h"

#define WATCH_BUSY 503

static Watch				  *watches[STREAMEXT_WATCHES];
static uint32				   watch_last_id = 0;
static dsm_segment			  *watch_segment = NULL; /* of the process; NULL: there is none */
static WatchShared			  *watch_shared;
static shm_mq_handle		  *watch_queue;
static BackgroundWorkerHandle *watch_handle;

/* ---- the process ---- */

static bool
watch_register(void)
{
	BackgroundStart start = { .name = "streamext watcher",
							  .type = "streamext watcher",
							  .function = "streamext_watcher_main",
							  .arg = UInt32GetDatum(dsm_segment_handle(watch_segment)),
							  .in_recovery = true };

	return streamext_background_start(&start, &watch_handle);
}

static bool
watch_start(void)
{
	shm_mq *queue;

	watch_segment = dsm_create(STREAMEXT_WATCH_QUEUE_AT + STREAMEXT_WATCH_QUEUE, DSM_CREATE_NULL_IF_MAXSEGMENTS);
	if (watch_segment == NULL)
		return false;
	watch_shared = dsm_segment_address(watch_segment);
	memset(watch_shared, 0, sizeof(WatchShared));
	SpinLockInit(&watch_shared->lock);
	watch_shared->dboid = MyDatabaseId;
	queue = shm_mq_create((char *) watch_shared + STREAMEXT_WATCH_QUEUE_AT, STREAMEXT_WATCH_QUEUE);
	shm_mq_set_receiver(queue, MyProc);
	if (!watch_register())
	{
		dsm_detach(watch_segment);
		watch_segment = NULL;
		return false;
	}
	watch_queue = shm_mq_attach(queue, watch_segment, watch_handle);
	return true;
}

static void
watch_stop(void)
{
	if (watch_segment == NULL)
		return;
	TerminateBackgroundWorker(watch_handle);
	shm_mq_detach(watch_queue);
	dsm_detach(watch_segment);
	pfree(watch_handle);
	watch_segment = NULL;
}

/* That there is one, which will see what is put into its places. */
static bool
watch_process(void)
{
	bool left = false;

	if (watch_segment != NULL)
	{
		SpinLockAcquire(&watch_shared->lock);
		left = watch_shared->left;
		SpinLockRelease(&watch_shared->lock);
	}
	if (left)
		watch_stop();
	return watch_segment != NULL || watch_start();
}

static void
watch_tell_process(int index)
{
	const Watch *watch = watches[index];
	WatchPlace	*place = &watch_shared->places[index];
	PGPROC		*process;

	SpinLockAcquire(&watch_shared->lock);
	memset(place, 0, sizeof(WatchPlace));
	if (watch != NULL)
	{
		place->id = watch->id;
		place->role = watch->role;
		strlcpy(place->schema, watch->schema, NAMEDATALEN);
		strlcpy(place->name, watch->name, NAMEDATALEN);
	}
	process = watch_shared->watcher;
	SpinLockRelease(&watch_shared->lock);
	if (process != NULL)
		SetLatch(&process->procLatch);
}

/* ---- who listens ---- */

static Watch *
watch_find(Oid role, const char *schema, const char *name)
{
	for (int i = 0; i < STREAMEXT_WATCHES; i++)
	{
		Watch *watch = watches[i];

		if (watch != NULL && watch->role == role && (watch->status == 0 || watch->status == 200) &&
			strcmp(watch->schema, schema) == 0 && strcmp(watch->name, name) == 0)
			return watch;
	}
	return NULL;
}

static Size
watch_bytes(void)
{
	Size bytes = 0;

	for (int i = 0; i < STREAMEXT_WATCHES; i++)
		if (watches[i] != NULL)
			bytes += streamext_board_bytes(watches[i]->board);
	return bytes;
}

/*
 * A role has no more places, and no more bytes, than are left for others: so whoever comes finds some, however many one role has taken.
 */
static bool
watch_has_share(Oid role)
{
	Size bytes = watch_bytes();
	Size its_bytes = 0;
	int	 its = 0, left = 0;

	for (int i = 0; i < STREAMEXT_WATCHES; i++)
	{
		if (watches[i] == NULL)
			left++;
		else if (watches[i]->role == role)
		{
			its++;
			its_bytes += streamext_board_bytes(watches[i]->board);
		}
	}
	return its < left && bytes <= STREAMEXT_BOARDS_BYTES && its_bytes <= STREAMEXT_BOARDS_BYTES - bytes;
}

static Watch *
watch_make(Oid role, const char *schema, const char *name)
{
	int index = 0;

	while (index < STREAMEXT_WATCHES && watches[index] != NULL)
		index++;
	if (!watch_has_share(role) || !watch_process())
		return NULL;
	watches[index] = palloc0(sizeof(Watch));
	watches[index]->id = ++watch_last_id;
	watches[index]->role = role;
	strlcpy(watches[index]->schema, schema, NAMEDATALEN);
	strlcpy(watches[index]->name, name, NAMEDATALEN);
	watches[index]->board = streamext_board_create(TopMemoryContext);
	dlist_init(&watches[index]->listeners);
	watch_tell_process(index);
	return watches[index];
}

bool
streamext_watch_join(WatchListener *listener, Oid role, const char *schema, const char *name)
{
	MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
	Watch		 *watch = watch_find(role, schema, name);

	if (watch == NULL)
		watch = watch_make(role, schema, name);
	MemoryContextSwitchTo(old);
	if (watch == NULL)
		return false;
	listener->watch = watch;
	memset(&listener->position, 0, sizeof(BoardPosition));
	dlist_push_tail(&watch->listeners, &listener->node);
	return true;
}

static void
watch_free(Watch *watch)
{
	for (int i = 0; i < STREAMEXT_WATCHES; i++)
	{
		if (watches[i] != watch)
			continue;
		watches[i] = NULL;
		if (watch_segment != NULL)
			watch_tell_process(i);
	}
	streamext_board_free(watch->board);
	if (watch->keys != NULL)
		pfree(watch->keys);
	pfree(watch);
}

void
streamext_watch_leave(WatchListener *listener)
{
	Watch *watch = listener->watch;

	if (watch == NULL)
		return;
	streamext_board_leave(&listener->position);
	dlist_delete(&listener->node);
	listener->watch = NULL;
	if (dlist_is_empty(&watch->listeners))
		watch_free(watch);
}

/* ---- what has come ---- */

static void
watch_wake(Watch *watch, void (*wake)(WatchListener *listener))
{
	dlist_mutable_iter iter;

	dlist_foreach_modify (iter, &watch->listeners)
		wake(dlist_container(WatchListener, node, iter.cur));
}

/* The listeners leave by themselves. */
static void
watch_end(Watch *watch, int status, const char *error, Size size, void (*wake)(WatchListener *listener))
{
	watch->status = status;
	strlcpy(watch->error, error, Min(size + 1, sizeof(watch->error)));
	watch_wake(watch, wake);
}

static Watch *
watch_with_id(uint32 id)
{
	for (int i = 0; i < STREAMEXT_WATCHES; i++)
		if (watches[i] != NULL && watches[i]->id == id && (watches[i]->status == 0 || watches[i]->status == 200))
			return watches[i];
	return NULL;
}

static void
watch_take(Watch *watch, const WatchRecord *record, const char *data, void (*wake)(WatchListener *listener))
{
	static const char large[] = "the view is too large for its changes to be told";

	switch (record->kind)
	{
		case WATCH_RESET:
			streamext_board_reset(watch->board, record->incarnation, record->number);
			if (watch->keys != NULL)
				pfree(watch->keys);
			watch->keys = pnstrdup(data, record->row_size);
			break;
		case WATCH_UPSERT:
		case WATCH_DELETE:
			streamext_board_put(watch->board, record->kind == WATCH_DELETE, record->number, data, record->key_size,
								data + record->key_size, record->row_size);
			break;
		case WATCH_SETTLED:
			streamext_board_settle(watch->board);
			if (streamext_board_bytes(watch->board) > STREAMEXT_WATCH_BYTES * 2)
			{
				watch_end(watch, 413, large, sizeof(large) - 1, wake);
				break;
			}
			watch->status = 200;
			watch_wake(watch, wake);
			break;
		case WATCH_ENDED:
			watch_end(watch, record->number, data, record->row_size, wake);
			break;
		case WATCH_PING:
			break;
	}
}

static void
watch_take_all(const char *data, Size size, void (*wake)(WatchListener *listener))
{
	for (const char *end = data + size; data < end;)
	{
		WatchRecord record;
		Watch	   *watch;

		memcpy(&record, data, sizeof(record));
		data += sizeof(record);
		watch = watch_with_id(record.id);
		if (watch != NULL)
			watch_take(watch, &record, data, wake);
		data += record.key_size + record.row_size;
	}
}

static void
watch_lost(void (*wake)(WatchListener *listener))
{
	static const char why[] = "the process that reads views has ended";

	watch_stop();
	for (int i = 0; i < STREAMEXT_WATCHES; i++)
		if (watches[i] != NULL)
			watch_end(watches[i], WATCH_BUSY, why, sizeof(why) - 1, wake);
}

void
streamext_watch_poll(void (*wake)(WatchListener *listener))
{
	while (watch_segment != NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(TopMemoryContext);
		Size		  size;
		void		 *data;
		shm_mq_result result = shm_mq_receive(watch_queue, &size, &data, true);

		if (result == SHM_MQ_SUCCESS)
			watch_take_all(data, size, wake);
		else if (result == SHM_MQ_DETACHED)
			watch_lost(wake);
		MemoryContextSwitchTo(old);
		if (result != SHM_MQ_SUCCESS)
			break;
	}
}
