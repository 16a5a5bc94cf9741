/*
 * gateway/watcher.c
 *		The process that reads views for the listeners of a gateway (gateway/watch.h): each when it is due, as the role that listens, in a
 *		transaction of its own.
 *
 * What has changed is collected while the feed (sink/changes.h) is held, and sent when nothing is: a gateway that is slow to take it holds up nobody else.
 * A view that takes longer than WATCHER_LIMIT_MS is cancelled, and read again later. Nobody listens for WATCHER_LINGER_MS: the process
 * ends; until then who was cut off goes on where he was, also where the feed is this process's alone.
 */
#include "base/streamext.h"

#include "access/xact.h"
#include "libpq/pqsignal.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shm_mq.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "base/background.h"
#include "base/budget.h"
#include "base/identity.h"
#include "base/transaction.h"
#include "gateway/reader.h"
#include "gateway/watch.h"
#include "sink/changes.h"

#define WATCHER_LIMIT_MS 10000
#define WATCHER_LINGER_MS 20000
#define WATCHER_PING_MS 1000
#define WATCHER_RETRY_US INT64CONST(5000000) /* after an error that may pass */
#define WATCHER_PATIENCE 4
#define WATCHER_PIECE (32 * 1024) /* bytes of a message, about */

typedef struct WatcherView
{
	WatchPlace	place;
	TimestampTz due;
	int64		emit_interval;
	uint64		incarnation, number; /* told up to here */
	bool		told;				 /* the board is there */
	bool		ended;
} WatcherView;

/* How long a role waits for its next look, since its last one. */
typedef struct WatcherRest
{
	Oid			role;
	TimestampTz until;
} WatcherRest;

/* One look at a view. */
typedef struct WatcherLook
{
	WatcherView	  *view;
	StringInfoData records;
	const char	  *keys;				/* of a reset's row */
	uint64		   incarnation, number; /* of the last one */
	bool		   large;				/* it does not fit */
} WatcherLook;

static WatcherView	  watcher_views[STREAMEXT_WATCHES];
static WatcherRest	  watcher_rests[STREAMEXT_WATCHES];
static WatchShared	 *watcher_shared;
static shm_mq_handle *watcher_queue;
static MemoryContext  watcher_round;

/* ---- sending ---- */

static void
watcher_send(const char *data, Size size)
{
	if (shm_mq_send(watcher_queue, size, data, false, true) != SHM_MQ_SUCCESS)
		proc_exit(0); /* the gateway is gone */
}

static void
watcher_append(StringInfo records, const WatchRecord *record, const char *key, const char *row)
{
	appendBinaryStringInfo(records, (const char *) record, sizeof(WatchRecord));
	if (record->key_size > 0)
		appendBinaryStringInfo(records, key, record->key_size);
	if (record->row_size > 0)
		appendBinaryStringInfo(records, row, record->row_size);
}

/* In messages of whole records. */
static void
watcher_send_records(StringInfo records)
{
	int from = 0, at = 0;

	while (at < records->len)
	{
		WatchRecord record;

		memcpy(&record, records->data + at, sizeof(record));
		at += sizeof(record) + record.key_size + record.row_size;
		if (at - from < WATCHER_PIECE && at < records->len)
			continue;
		watcher_send(records->data + from, at - from);
		from = at;
	}
}

static void
watcher_end(WatcherView *view, int status, const char *why)
{
	WatchRecord	   record = { .id = view->place.id, .kind = WATCH_ENDED, .number = status, .row_size = strlen(why) };
	StringInfoData records;

	initStringInfo(&records);
	watcher_append(&records, &record, NULL, why);
	watcher_send_records(&records);
	view->ended = true;
}

/* ---- a look ---- */

/* A JSON string of ASCII; the text is UTF-8. */
static void
watcher_ascii_string(StringInfo json, const char *text)
{
	appendStringInfoChar(json, '"');
	for (const unsigned char *p = (const unsigned char *) text; *p != '\0'; p += pg_utf_mblen(p))
	{
		pg_wchar c = utf8_to_unicode(p);

		if (c >= 0x10000)
			appendStringInfo(json, "\\u%04x\\u%04x", 0xd7c0 + (c >> 10), 0xdc00 + (c & 0x3ff));
		else if (c < ' ' || c > '~' || c == '"' || c == '\\')
			appendStringInfo(json, "\\u%04x", c);
		else
			appendStringInfoChar(json, c);
	}
	appendStringInfoChar(json, '"');
}

static char *
watcher_keys(const ChangesReader *reader)
{
	StringInfoData json;
	ListCell	  *lc;

	initStringInfo(&json);
	appendStringInfoChar(&json, '[');
	foreach (lc, streamext_changes_keys(reader))
	{
		char *name = lfirst(lc);

		if (json.len > 1)
			appendStringInfoChar(&json, ',');
		watcher_ascii_string(&json, pg_server_to_any(name, strlen(name), PG_UTF8));
	}
	appendStringInfoChar(&json, ']');
	return json.data;
}

/* The feed is held. */
static void
watcher_take(void *arg, const Change *change)
{
	WatcherLook *look = arg;
	WatchRecord	 record = { .id = look->view->place.id,
							.incarnation = change->incarnation,
							.number = change->number,
							.key_size = change->key_size };
	const char	*row = change->row;

	if (look->large)
		return;
	record.kind = change->op == STREAMEXT_CHANGE_RESET	  ? WATCH_RESET
				  : change->op == STREAMEXT_CHANGE_DELETE ? WATCH_DELETE
														  : WATCH_UPSERT;
	record.row_size = change->row_size;
	if (row == NULL)
	{
		row = look->keys;
		record.row_size = strlen(row);
	}
	else if (GetDatabaseEncoding() != PG_UTF8)
	{
		row = pg_server_to_any(pnstrdup(row, change->row_size), change->row_size, PG_UTF8);
		record.row_size = strlen(row);
	}
	look->large = look->records.len + sizeof(record) + record.key_size + record.row_size > STREAMEXT_WATCH_BYTES;
	if (!look->large)
		watcher_append(&look->records, &record, change->key, row);
	look->incarnation = change->incarnation;
	look->number = change->number;
}

static void
watcher_read(WatcherLook *look)
{
	WatcherView	   *view = look->view;
	ChangesQuestion question = { .fresh = GetCurrentTimestamp(), .idle = true, .gone = true };
	IdentityScope	scope = streamext_reader_enter(view->place.role);
	ChangesReader  *reader;

	if (view->told)
		question.after =
			psprintf("%016llx-%llu", (unsigned long long) view->incarnation, (unsigned long long) view->number);
	reader = streamext_changes_open(streamext_reader_view(view->place.schema, view->place.name, view->place.role));
	view->emit_interval = streamext_changes_emit_interval(reader);
	look->keys = watcher_keys(reader);
	(void) streamext_changes_read(reader, &question, watcher_take, look, NULL);
	streamext_identity_leave(scope);
}

/* What is in the look has happened. */
static void
watcher_tell(WatcherLook *look)
{
	WatcherView *view = look->view;
	WatchRecord	 settled = { .id = view->place.id, .kind = WATCH_SETTLED };

	if (look->large)
		watcher_end(view, 413, "the view is too large for its changes to be told");
	else if (look->records.len > 0)
	{
		watcher_append(&look->records, &settled, NULL, NULL);
		watcher_send_records(&look->records);
		view->told = true;
		view->incarnation = look->incarnation;
		view->number = look->number;
	}
}

/* A view that takes long waits four times as long: it leaves time for the others. */
static TimestampTz
watcher_next(TimestampTz began, int64 emit_interval)
{
	TimestampTz now = GetCurrentTimestamp();

	return Max(began + emit_interval, now + (now - began) * WATCHER_PATIENCE);
}

/* ---- roles ---- */

/* The role's pause, or that of one whose pause is over the longest. */
static WatcherRest *
watcher_rest_of(Oid role)
{
	WatcherRest *oldest = &watcher_rests[0];

	for (int i = 0; i < STREAMEXT_WATCHES; i++)
	{
		if (watcher_rests[i].role == role)
			return &watcher_rests[i];
		if (watcher_rests[i].until < oldest->until)
			oldest = &watcher_rests[i];
	}
	return oldest;
}

/* A look of the role's has begun then and is over. */
static void
watcher_rest(Oid role, TimestampTz began)
{
	WatcherRest *rest = watcher_rest_of(role);

	rest->role = role;
	rest->until = watcher_next(began, 0);
}

/*
 * Where several roles listen a pause is one of all views of the role, which take turns: the more it has, the less often each is read, and those
 * of others are not. DT_NOEND: it is the turn of another one of the role.
 */
static TimestampTz
watcher_due(const WatcherView *view)
{
	const WatcherRest *rest = watcher_rest_of(view->place.role);
	bool			   others = false;
	bool			   turn = true;

	for (int i = 0; i < STREAMEXT_WATCHES; i++)
	{
		const WatcherView *other = &watcher_views[i];

		if (other->place.id == 0 || other->ended)
			continue;
		others = others || other->place.role != view->place.role;
		turn = turn && (other->place.role != view->place.role || other->due >= view->due);
	}
	if (!others)
		return view->due;
	return !turn ? DT_NOEND : rest->role == view->place.role ? Max(view->due, rest->until) : view->due;
}

/* What may pass is tried again, for who is told already. */
static void
watcher_failed(WatcherView *view, const ErrorData *error, TimestampTz began)
{
	int status = streamext_reader_status(error);

	if (!view->told || status < 500)
		watcher_end(view, status, error->message);
	else
		view->due = watcher_next(began, 0) + WATCHER_RETRY_US;
}

static void
watcher_look(WatcherView *view)
{
	MemoryContext cxt = MemoryContextSwitchTo(watcher_round);
	TimestampTz	  now = GetCurrentTimestamp();
	WatcherLook	  look = { view };

	initStringInfo(&look.records);
	PG_TRY();
	{
		StartTransactionCommand();
		XactReadOnly = true;
		PushActiveSnapshot(GetTransactionSnapshot());
		streamext_worker_short_lock_timeout();
		MemoryContextSwitchTo(watcher_round);
		pgstat_report_activity(STATE_RUNNING, "telling of changes");
		streamext_budget_begin(WATCHER_LIMIT_MS);
		watcher_read(&look);
		(void) streamext_budget_end();
		PopActiveSnapshot();
		CommitTransactionCommand();
		MemoryContextSwitchTo(watcher_round);
		view->due = watcher_next(now, view->emit_interval);
		watcher_tell(&look);
	}
	PG_CATCH();
	{
		bool	   over = streamext_budget_end();
		ErrorData *error = streamext_worker_caught(watcher_round);

		if (over)
			streamext_budget_explain(error, WATCHER_LIMIT_MS);
		watcher_failed(view, error, now);
	}
	PG_END_TRY();
	watcher_rest(view->place.role, now);
	pgstat_report_activity(STATE_IDLE, NULL);
	MemoryContextSwitchTo(cxt);
	MemoryContextReset(watcher_round);
}

/* ---- the process ---- */

/* What is to be watched. False: there is nothing, and if `leave` there never will be. */
static bool
watcher_take_places(bool leave)
{
	bool any = false;

	SpinLockAcquire(&watcher_shared->lock);
	for (int i = 0; i < STREAMEXT_WATCHES; i++)
	{
		const WatchPlace *place = &watcher_shared->places[i];
		WatcherView		 *view = &watcher_views[i];

		if (place->id != view->place.id)
		{
			memset(view, 0, sizeof(WatcherView));
			view->place = *place;
		}
		any = any || place->id != 0;
	}
	watcher_shared->left = leave && !any;
	SpinLockRelease(&watcher_shared->lock);
	return any;
}

/* All that is due; when the next one will be. */
static TimestampTz
watcher_run_due(void)
{
	TimestampTz next = DT_NOEND;

	for (int i = 0; i < STREAMEXT_WATCHES; i++)
	{
		WatcherView *view = &watcher_views[i];

		if (view->place.id == 0 || view->ended)
			continue;
		CHECK_FOR_INTERRUPTS();
		if (GetCurrentTimestamp() >= watcher_due(view))
			watcher_look(view);
		if (!view->ended)
			next = Min(next, watcher_due(view));
	}
	return next;
}

static void
watcher_ping(void)
{
	static TimestampTz next = 0;
	TimestampTz		   now = GetCurrentTimestamp();
	WatchRecord		   ping = { .kind = WATCH_PING };

	if (now < next)
		return;
	next = TimestampTzPlusMilliseconds(now, WATCHER_PING_MS);
	watcher_send((char *) &ping, sizeof(ping));
}

static void
watcher_loop(void)
{
	TimestampTz wanted = GetCurrentTimestamp();

	for (;;)
	{
		TimestampTz next;
		bool		leave;

		ResetLatch(MyLatch);
		if (ShutdownRequestPending)
			return;
		(void) streamext_background_interrupts();
		leave = TimestampDifferenceExceeds(wanted, GetCurrentTimestamp(), WATCHER_LINGER_MS);
		if (watcher_take_places(leave))
			wanted = GetCurrentTimestamp();
		else if (leave)
			return;
		next = watcher_run_due();
		pgstat_report_stat(false);
		watcher_ping();
		next = Min(next, TimestampTzPlusMilliseconds(GetCurrentTimestamp(), WATCHER_PING_MS));
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Max(TimestampDifferenceMilliseconds(GetCurrentTimestamp(), next), 1), PG_WAIT_EXTENSION);
	}
}

static void
watcher_sigterm(SIGNAL_ARGS)
{
	int save_errno = errno;

	ShutdownRequestPending = true; /* for the loop: a quiet end */
	die(postgres_signal_arg);	   /* for whatever else is running */
	errno = save_errno;
}

void
streamext_watcher_main(Datum arg)
{
	dsm_segment *segment;
	shm_mq		*queue;

	pqsignal(SIGTERM, watcher_sigterm);
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	BackgroundWorkerUnblockSignals();
	CurrentResourceOwner = ResourceOwnerCreate(NULL, "streamext watcher");
	segment = dsm_attach(DatumGetUInt32(arg));
	if (segment == NULL)
		proc_exit(0); /* the gateway is gone */
	dsm_pin_mapping(segment);
	watcher_shared = dsm_segment_address(segment);
	queue = (shm_mq *) ((char *) watcher_shared + STREAMEXT_WATCH_QUEUE_AT);
	shm_mq_set_sender(queue, MyProc);
	watcher_queue = shm_mq_attach(queue, segment, NULL);
	BackgroundWorkerInitializeConnectionByOid(watcher_shared->dboid, InvalidOid, 0);
	streamext_reader_session("streamext watcher");
	streamext_budget_register();
	SpinLockAcquire(&watcher_shared->lock);
	watcher_shared->watcher = MyProc;
	SpinLockRelease(&watcher_shared->lock);
	watcher_round = AllocSetContextCreate(TopMemoryContext, "streamext watcher round", ALLOCSET_DEFAULT_SIZES);
	watcher_loop();
	proc_exit(0);
}
