/*
 * sink/delivery.c
 *		From the outbox to the other system.
 *
 * A set of rows is named by a number before it is sent: streamext_internal.sink_target holds the number and the rows' ids, committed. What has arrived is
 * taken from the outbox, and the number with it, in one transaction. After whatever crash the same set is sent again under the same number, and
 * a transport that is `at_once` asks the other system first which number it has seen last: so each row arrives there once. Others send
 * again: at least once.
 *
 * The thread makes no call of PostgreSQL. The main thread and it share `state`, an atomic: IDLE and DONE belong to the main thread with all
 * else, SENDING to the thread. The main thread looks each DELIVERY_TICK_MS while something is under way.
 *
 * A set whose names are known to the other system (`at_once`) may be sent by a new client while the old one hangs in a call of its library: whatever
 * that one still does is refused, or arrives before the new one asks. So after streamext.delivery_timeout the thread is left to itself, and before
 * that it is shown that there is no answer.
 *
 * A row that the other system refuses is marked in the outbox with the reason, and what is behind it goes on. When it cannot be reached all
 * waits, in order; what is tried again comes later each time, up to DELIVERY_LATEST_MS.
 */
#include "base/streamext.h"

#include <pthread.h>
#include <signal.h>

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/pmsignal.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

#include "base/clip.h"
#include "base/fault.h"
#include "base/own_table.h"
#include "base/thread.h"
#include "base/transaction.h"
#include "sink/delivery.h"
#include "sink/message.h"
#include "sink/transport.h"

#define DELIVERY_TICK_MS 5
#define DELIVERY_EARLIEST_MS 100
#define DELIVERY_LATEST_MS 15000
#define DELIVERY_CLOSE_MS 1500
#define DELIVERY_SET_BYTES (4 * 1024 * 1024)
#define DELIVERY_SLOW_MS 15000 /* without an answer, until that is shown */
#define DELIVERY_LEFT_MAX 4	   /* threads that are left to themselves */

typedef enum DeliveryState
{
	DELIVERY_IDLE,
	DELIVERY_SENDING,
	DELIVERY_DONE,
	DELIVERY_ENDING
} DeliveryState;

typedef struct Delivery
{
	const TransportOps *ops;
	Transport		   *transport;
	pthread_t			thread;
	pthread_mutex_t		mutex;
	pthread_cond_t		wake;
	DeliveryState		state; /* with the mutex */
	volatile bool		stop;

	MemoryContext cxt; /* of the set at hand */
	Shipment	  shipment;
	Oid			 *views;
	int64		 *ids;

	bool		left;						  /* nobody waits for the thread any more; with the mutex, as is */
	bool		ended;						  /* that it is over, its client too */
	bool		looked;						  /* at what a former process has left */
	int			failures;					  /* in a row */
	TimestampTz retry_at;					  /* nothing is sent sooner; 0: it is */
	TimestampTz sent_at;					  /* the set at hand */
	bool		told;						  /* streamext_internal.sink_target has the state that this one has found */
	char		shown[STREAMEXT_MAX_MESSAGE]; /* the error in streamext_internal.sink_target; "" none */
} Delivery;

static Delivery		   *delivery_open; /* of this process, for its end */
static pg_atomic_uint32 delivery_left; /* threads left to themselves that have not ended */

/* ---------------------------------------------------------------- the thread */

static void *
delivery_thread(void *arg)
{
	Delivery *d = arg;
	bool	  left;

	pthread_mutex_lock(&d->mutex);
	for (;;)
	{
		while (d->state != DELIVERY_SENDING && d->state != DELIVERY_ENDING)
			pthread_cond_wait(&d->wake, &d->mutex);
		if (d->state == DELIVERY_ENDING)
			break;
		pthread_mutex_unlock(&d->mutex);
		d->ops->send(d->transport, &d->shipment);
		pthread_mutex_lock(&d->mutex);
		if (d->state == DELIVERY_SENDING)
			d->state = DELIVERY_DONE;
	}
	pthread_mutex_unlock(&d->mutex);
	d->ops->close(d->transport);
	pthread_mutex_lock(&d->mutex);
	d->ended = true;
	left = d->left;
	pthread_mutex_unlock(&d->mutex);
	if (left)
		pg_atomic_fetch_sub_u32(&delivery_left, 1);
	return NULL;
}

static bool
delivery_start_thread(Delivery *d)
{
	pthread_mutex_init(&d->mutex, NULL);
	pthread_cond_init(&d->wake, NULL);
	return streamext_thread_start(&d->thread, delivery_thread, d) == 0;
}

static void
delivery_set_state(Delivery *d, DeliveryState state)
{
	pthread_mutex_lock(&d->mutex);
	d->state = state;
	pthread_cond_signal(&d->wake);
	pthread_mutex_unlock(&d->mutex);
}

static DeliveryState
delivery_state(Delivery *d)
{
	DeliveryState state;

	pthread_mutex_lock(&d->mutex);
	state = d->state;
	pthread_mutex_unlock(&d->mutex);
	return state;
}

/* With all that it may look at. It counts until it ends, if it has not. */
static void
delivery_leave(Delivery *d)
{
	pthread_mutex_lock(&d->mutex);
	d->left = !d->ended;
	if (d->left)
		pg_atomic_fetch_add_u32(&delivery_left, 1);
	d->stop = true;
	d->state = DELIVERY_ENDING;
	pthread_mutex_unlock(&d->mutex);
	pthread_detach(d->thread);
}

/* A thread that hangs in the client is left to itself. */
static void
delivery_end(Delivery *d)
{
	struct timespec deadline;

	d->stop = true;
	delivery_set_state(d, DELIVERY_ENDING);
	clock_gettime(CLOCK_REALTIME, &deadline);
	deadline.tv_sec += DELIVERY_CLOSE_MS / 1000 + 1;
	if (pthread_timedjoin_np(d->thread, NULL, &deadline) != 0)
	{
		delivery_leave(d);
		return;
	}
	MemoryContextDelete(d->cxt);
	free(d);
}

static void
delivery_at_exit(int code, Datum arg)
{
	Delivery *d = delivery_open;

	delivery_open = NULL;
	/* without a postmaster nobody minds how this process ends, but the next one waits for it */
	if (d != NULL && PostmasterIsAlive())
		delivery_end(d);
}

void
streamext_delivery_close(Sending *w)
{
	delivery_at_exit(0, (Datum) 0);
	w->delivery = NULL;
}

static Delivery *
delivery_make(Sending *w, char *error)
{
	static bool registered = false;
	Delivery   *d = calloc(1, sizeof(Delivery));

	if (d == NULL)
		return NULL;
	d->ops = streamext_transport(w->config->connector);
	d->transport = d->ops->open(w->config, error);
	if (d->transport == NULL)
	{
		free(d);
		return NULL;
	}
	if (!delivery_start_thread(d))
	{
		streamext_clip(error, "could not start a thread", STREAMEXT_MAX_MESSAGE);
		d->ops->close(d->transport);
		free(d);
		return NULL;
	}
	d->cxt = AllocSetContextCreate(TopMemoryContext, "streamext delivery", ALLOCSET_DEFAULT_SIZES);
	if (!registered)
	{
		pg_atomic_init_u32(&delivery_left, 0);
		before_shmem_exit(delivery_at_exit, (Datum) 0);
	}
	registered = true;
	delivery_open = d;
	return d;
}

/* ---------------------------------------------------------------- what the tables say */

static void
delivery_show(Oid target, const char *state, const char *error)
{
	Oid	  types[] = { OIDOID, TEXTOID, TEXTOID };
	Datum values[] = { ObjectIdGetDatum(target), CStringGetTextDatum(state), CStringGetTextDatum(error) };

	(void) streamext_control_execute(
		"INSERT INTO streamext_internal.sink_target AS t (target, state, last_error, last_error_at) "
		"VALUES ($1, $2, NULLIF($3, ''), CASE WHEN $3 OPERATOR(pg_catalog.<>) '' THEN pg_catalog.clock_timestamp() END) "
		"ON CONFLICT (target) DO UPDATE SET state = EXCLUDED.state, last_error = COALESCE(EXCLUDED.last_error, t.last_error), "
		"last_error_at = COALESCE(EXCLUDED.last_error_at, t.last_error_at)",
		3, types, values, NULL, SPI_OK_INSERT);
}

/* What a former process, or one that could not begin, has shown is over if nothing waits. */
static void
delivery_show_idle(Oid target)
{
	Oid	  types[] = { OIDOID };
	Datum values[] = { ObjectIdGetDatum(target) };

	(void) streamext_control_execute(
		"UPDATE streamext_internal.sink_target SET state = 'running' WHERE target OPERATOR(pg_catalog.=) $1 "
		"AND state OPERATOR(pg_catalog.<>) 'running'",
		1, types, values, NULL, SPI_OK_UPDATE);
}

static Datum
delivery_ids(const int64 *ids, int n)
{
	Datum *values = palloc(sizeof(Datum) * Max(n, 1));

	for (int i = 0; i < n; i++)
		values[i] = Int64GetDatum(ids[i]);
	return PointerGetDatum(construct_array(values, n, INT8OID, sizeof(int64), true, TYPALIGN_DOUBLE));
}

/* The first `done` have arrived, one may be refused: they go, it stays and says why, the rest waits without a number. */
static void
delivery_settle(Sending *w, Delivery *d)
{
	Oid	  types[] = { OIDOID, INT8ARRAYOID };
	Datum values[] = { ObjectIdGetDatum(w->config->relid), delivery_ids(d->ids, d->shipment.done) };

	if (d->shipment.done > 0)
		(void) streamext_control_execute(
			"WITH gone AS (DELETE FROM streamext_internal.outbox WHERE target OPERATOR(pg_catalog.=) $1 "
			"AND id OPERATOR(pg_catalog.=) ANY ($2) RETURNING view) "
			"INSERT INTO streamext_internal.sink_count AS c (target, view, delivered) "
			"SELECT $1, view, pg_catalog.count(*) FROM gone GROUP BY view "
			"ON CONFLICT (target, view) DO UPDATE SET delivered = c.delivered OPERATOR(pg_catalog.+) EXCLUDED.delivered",
			2, types, values, NULL, SPI_OK_INSERT);
	if (d->shipment.refused >= 0)
	{
		Oid	  refused_types[] = { INT8OID, TEXTOID };
		Datum refused[] = { Int64GetDatum(d->ids[d->shipment.refused]), CStringGetTextDatum(d->shipment.error) };

		(void) streamext_control_execute(
			"UPDATE streamext_internal.outbox SET reason = $2 WHERE id OPERATOR(pg_catalog.=) $1", 2, refused_types,
			refused, NULL, SPI_OK_UPDATE);
	}
	if (d->shipment.done > 0 || d->shipment.refused >= 0)
		(void) streamext_control_execute(
			"UPDATE streamext_internal.sink_target SET batch = NULL, ids = NULL WHERE target OPERATOR(pg_catalog.=) $1",
			1, types, values, NULL, SPI_OK_UPDATE);
}

/* ---------------------------------------------------------------- a set of rows */

/*
 * The rows of a set that has a number already, or the next ones, up to one that is not to be sent; is that the first it is the set's one row, refused.
 * Within SPI.
 */
static bool
delivery_select(Sending *w, Delivery *d, bool numbered)
{
	Oid			types[] = { OIDOID, INT4OID };
	Datum		values[] = { ObjectIdGetDatum(w->config->relid), Int32GetDatum(d->ops->most) };
	const char *columns =
		"SELECT o.id, o.view, o.topic, o.key, o.payload, o.headers FROM streamext_internal.outbox AS o";
	Size		  bytes = 0;
	int			  n = 0;
	MemoryContext old;

	if (SPI_execute_with_args(
			streamext_own_sql(
				numbered
					? psprintf(
						  "%s, streamext_internal.sink_target AS t WHERE t.target OPERATOR(pg_catalog.=) $1 AND "
						  "o.target OPERATOR(pg_catalog.=) $1 AND o.id OPERATOR(pg_catalog.=) ANY (t.ids) ORDER BY o.id",
						  columns)
					: psprintf(
						  "%s WHERE o.target OPERATOR(pg_catalog.=) $1 AND o.reason IS NULL ORDER BY o.id LIMIT $2",
						  columns)),
			numbered ? 1 : 2, types, values, NULL, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not read streamext_internal.outbox");
	old = MemoryContextSwitchTo(d->cxt);
	d->shipment.messages = palloc(sizeof(Message) * Max(SPI_processed, 1));
	d->ids = palloc(sizeof(int64) * Max(SPI_processed, 1));
	while (n < (int) SPI_processed && (n == 0 || numbered || bytes < DELIVERY_SET_BYTES))
	{
		Message	   *message = &d->shipment.messages[n];
		const char *problem = streamext_message_read(message, SPI_tuptable->vals[n], SPI_tuptable->tupdesc);

		d->ids[n] = message->id;
		if (problem != NULL && n > 0)
			break;
		if (problem != NULL)
		{
			d->shipment.refused = 0;
			streamext_clip(d->shipment.error, problem, sizeof(d->shipment.error));
		}
		bytes += d->shipment.messages[n++].payload_size;
		if (problem != NULL)
			break;
	}
	d->shipment.n = n;
	MemoryContextSwitchTo(old);
	return n > 0;
}

/* The number of the set that a former try has left; 0: none. */
static int64
delivery_number(Oid target)
{
	Oid	  types[] = { OIDOID };
	Datum values[] = { ObjectIdGetDatum(target) };

	return streamext_control_execute(
		"SELECT batch FROM streamext_internal.sink_target WHERE target OPERATOR(pg_catalog.=) $1", 1, types, values,
		NULL, SPI_OK_SELECT);
}

static void
delivery_keep_number(Oid target, Delivery *d)
{
	Oid	  types[] = { OIDOID, INT8OID, INT8ARRAYOID };
	Datum values[] = { ObjectIdGetDatum(target), Int64GetDatum(d->shipment.batch),
					   delivery_ids(d->ids, d->shipment.n) };

	/* what the other system is told of must be there for good */
	(void) set_config_option("synchronous_commit", "on", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
	(void) streamext_control_execute(
		"INSERT INTO streamext_internal.sink_target AS t (target, batch, ids) VALUES ($1, $2, $3) "
		"ON CONFLICT (target) DO UPDATE SET batch = EXCLUDED.batch, ids = EXCLUDED.ids",
		3, types, values, NULL, SPI_OK_INSERT);
}

/* Not a count: a server that was set back to an older copy of itself would count the same numbers once more. */
static int64
delivery_draw_number(void)
{
	uint64 number;

	if (!pg_strong_random(&number, sizeof(number)))
		elog(ERROR, "could not get random bytes");
	return (int64) (number >> 2) + 1;
}

/* False: nothing waits, or a row was set aside that is not to be sent (Shipment.refused). */
static bool
delivery_load(Sending *w, Delivery *d)
{
	IdentityScope own;
	int64		  number = d->looked && !d->ops->at_once ? 0 : delivery_number(w->config->relid);
	bool		  found;

	MemoryContextReset(d->cxt);
	memset(&d->shipment, 0, sizeof(d->shipment));
	d->shipment.stop = &d->stop;
	d->shipment.refused = -1;
	own = streamext_own_begin();
	if (!d->looked &&
		SPI_execute(
			streamext_own_sql("DELETE FROM streamext_internal.outbox AS o WHERE NOT EXISTS "
							  "(SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) o.target)"),
			false, 0) != SPI_OK_DELETE)
		elog(ERROR, "could not tidy streamext_internal.outbox");
	found = (number != 0 && delivery_select(w, d, true)) || delivery_select(w, d, false);
	streamext_own_end(own);
	if (!found)
		return false;
	if (d->shipment.refused >= 0)
	{
		delivery_settle(w, d);
		return false;
	}
	if (number == 0 || !d->ops->at_once)
		number = delivery_draw_number();
	d->shipment.batch = number;
	if (d->ops->at_once)
		delivery_keep_number(w->config->relid, d);
	return true;
}

/* ---------------------------------------------------------------- one step, in a transaction */

typedef struct DeliveryStep
{
	Sending	 *w;
	Delivery *d;
	bool (*step)(struct DeliveryStep *step);
	const char *state;
	const char *error;
} DeliveryStep;

static bool
delivery_step_load(DeliveryStep *step)
{
	bool found = delivery_load(step->w, step->d);

	if (!found && !step->d->looked)
		delivery_show_idle(step->w->config->relid);
	return found;
}

static bool
delivery_step_settle(DeliveryStep *step)
{
	delivery_settle(step->w, step->d);
	return true;
}

static bool
delivery_step_nothing(DeliveryStep *step)
{
	return true;
}

/* False: it did not, or failed; then it is to be tried again. */
static bool
delivery_transaction(DeliveryStep *step, bool *failed)
{
	MemoryContext cxt = CurrentMemoryContext;
	volatile bool result = false;

	*failed = false;
	PG_TRY();
	{
		StartTransactionCommand();
		PushActiveSnapshot(GetTransactionSnapshot());
		if (OidIsValid(streamext_control_table("outbox"))) /* the extension may be of version 1.0, or go */
		{
			result = step->step(step);
			if (step->state != NULL)
				delivery_show(step->w->config->relid, step->state, step->error);
		}
		PopActiveSnapshot();
		CommitTransactionCommand();
	}
	PG_CATCH();
	{
		ErrorData *error = streamext_worker_caught(cxt);

		ereport(LOG, (errmsg("outbox of stream \"%s.%s\": %s", step->w->config->schema, step->w->config->name,
							 streamext_error_text(error))));
		FreeErrorData(error);
		*failed = true;
		result = false;
	}
	PG_END_TRY();
	MemoryContextSwitchTo(cxt);
	return result;
}

/* ---------------------------------------------------------------- the course of things */

static void
delivery_wait(Delivery *d, TimestampTz now)
{
	int64 ms = Min((int64) DELIVERY_EARLIEST_MS << Min(d->failures, 10), DELIVERY_LATEST_MS);

	d->failures++;
	d->retry_at = TimestampTzPlusMilliseconds(now, Max(ms, d->shipment.wait_ms));
}

/* What the thread says of the set. */
static void
delivery_take_up(Sending *w, Delivery *d, TimestampTz now)
{
	Shipment	*s = &d->shipment;
	bool		 on = s->done == s->n || s->refused >= 0;
	bool		 news = !d->told || strcmp(d->shown, s->error) != 0 || (on && d->shown[0] != '\0');
	DeliveryStep step = { w, d, s->done > 0 || s->refused >= 0 ? delivery_step_settle : delivery_step_nothing };
	bool		 failed;

	STREAMEXT_FAULT("delivery-before-settle");
	if (news)
	{
		step.state = on || s->reachable ? "running" : "stalled";
		step.error = s->error;
	}
	if (step.step != delivery_step_nothing || news)
	{
		(void) delivery_transaction(&step, &failed);
		if (failed)
		{
			d->retry_at = TimestampTzPlusMilliseconds(now, 1000); /* the thread's answer is kept */
			return;
		}
	}
	d->told = true;
	streamext_clip(d->shown, on ? "" : s->error, sizeof(d->shown));
	if (on)
	{
		d->failures = 0;
		d->retry_at = s->wait_ms > 0 ? TimestampTzPlusMilliseconds(now, s->wait_ms) : 0;
	}
	else
		delivery_wait(d, now);
	delivery_set_state(d, DELIVERY_IDLE);
	pg_atomic_write_u32(&w->slot->ask.outbox_due, 1);
}

/* Views whose windows found no room look again. */
static void
delivery_hand_over(Sending *w, Delivery *d, TimestampTz now)
{
	DeliveryStep step = { w, d, delivery_step_load };
	bool		 failed;

	pg_atomic_write_u32(&w->slot->ask.outbox_due, 0);
	pg_memory_barrier();
	if (delivery_transaction(&step, &failed))
	{
		d->looked = true;
		d->sent_at = now;
		delivery_set_state(d, DELIVERY_SENDING);
		return;
	}
	if (failed)
	{
		pg_atomic_write_u32(&w->slot->ask.outbox_due, 1);
		d->retry_at = TimestampTzPlusMilliseconds(now, 1000);
		return;
	}
	d->looked = true;
	if (d->shipment.refused >= 0)
		pg_atomic_write_u32(&w->slot->ask.outbox_due, 1);
}

static bool
delivery_is_due(const Sending *w)
{
	return w->delivery == NULL || !w->delivery->looked || pg_atomic_read_u32(&w->slot->ask.outbox_due) != 0;
}

/* What keeps the transport from being made is shown, and it is tried again. */
static void
delivery_begin(Sending *w, TimestampTz now)
{
	char		 error[STREAMEXT_MAX_MESSAGE] = "";
	DeliveryStep step = { w, NULL, delivery_step_nothing, "failed", error };
	bool		 failed;

	w->delivery = delivery_make(w, error);
	if (w->delivery != NULL)
		return;
	w->retry_at = TimestampTzPlusMilliseconds(now, DELIVERY_LATEST_MS);
	if (error[0] != '\0')
		(void) delivery_transaction(&step, &failed);
}

/* The thread does not come back: that is shown, and in the end another one takes its place. */
static void
delivery_watch(Sending *w, Delivery *d, TimestampTz now)
{
	int64		 ms = (now - d->sent_at) / 1000;
	int64		 most = (int64) streamext_delivery_timeout * 1000;
	char		 error[STREAMEXT_MAX_MESSAGE];
	DeliveryStep step = { w, d, delivery_step_nothing, "stalled", error };
	bool		 failed;

	if (!d->ops->at_once || ms < Min(DELIVERY_SLOW_MS, most))
		return;
	snprintf(error, sizeof(error), "no answer for %d s", (int) (Min(DELIVERY_SLOW_MS, most) / 1000));
	if (strcmp(d->shown, error) != 0)
	{
		(void) delivery_transaction(&step, &failed);
		if (failed)
			return;
		d->told = true;
		streamext_clip(d->shown, error, sizeof(d->shown));
	}
	if (ms < most || pg_atomic_read_u32(&delivery_left) >= DELIVERY_LEFT_MAX)
		return;
	ereport(LOG, (errmsg("delivery to \"%s.%s\" is begun anew: its client has not come back from a call for %d s",
						 w->config->schema, w->config->name, streamext_delivery_timeout)));
	delivery_leave(d);
	delivery_open = NULL;
	w->delivery = NULL;
	w->retry_at = 0;
}

void
streamext_delivery_run(Sending *w, TimestampTz now, bool send)
{
	Delivery *d;

	if (w->config == NULL || !w->config->connector->published)
		return;
	if (w->delivery == NULL && send && now >= w->retry_at)
		delivery_begin(w, now);
	d = w->delivery;
	if (d == NULL || now < d->retry_at)
		return;
	switch (delivery_state(d))
	{
		case DELIVERY_DONE:
			delivery_take_up(w, d, now);
			if (!send || now < d->retry_at)
				return;
			/* fall through */
		case DELIVERY_IDLE:
			if (send && delivery_is_due(w))
				delivery_hand_over(w, d, now);
			break;
		case DELIVERY_SENDING:
			delivery_watch(w, d, now);
			break;
		default:
			break;
	}
}

TimestampTz
streamext_delivery_deadline(const Sending *w, TimestampTz now)
{
	Delivery *d = w->delivery;

	if (w->config == NULL || !w->config->connector->published)
		return DT_NOEND;
	if (d == NULL)
		return Max(w->retry_at, now);
	switch (delivery_state(d))
	{
		case DELIVERY_SENDING:
			return TimestampTzPlusMilliseconds(now, DELIVERY_TICK_MS);
		case DELIVERY_IDLE:
			return delivery_is_due(w) ? Max(d->retry_at, now) : DT_NOEND;
		default:
			return Max(d->retry_at, now);
	}
}
