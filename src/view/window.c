/*
 * view/window.c
 *		Window and pane arithmetic, and the window functions in SQL.
 *
 * Fixed windows and panes are floor divisions of int64 microseconds. Divisions and remainders are taken before anything is
 * subtracted, and what is multiplied back is clamped, so that no combination of time, size and origin overflows: at the
 * ends of the range a bound is PG_INT64_MIN or _MAX instead. A pane's number counts from the pane that begins at
 * (origin mod pane); its id is that number, or with edges twice that (plus one but for the lower edge itself).
 *
 * Calendar buckets are PostgreSQL's own: its functions are called with session_timezone set to the window's zone for the
 * moment, and what they say is cached.
 */
#include "postgres.h"

#include "common/int.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "parser/scansup.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "view/window.h"

#define WINDOW_HINT_INTERVAL "Write it like '10 s' or '1 day'."
#define TRUNC_SLOTS 1024 /* powers of two */
#define TRUNC_END_SLOTS 64

/* A cached answer; `key` is PG_INT64_MIN where there is none. */
typedef struct TruncSlot
{
	int64		key;
	TimestampTz value;
} TruncSlot;

struct TruncCache
{
	int64		  grain; /* milliseconds and the like: buckets of this width in any zone; else 0 */
	Interval	  width; /* of a bucket */
	int64		  max_width;
	bool		  has_time; /* hour, minute: a bucket keeps its rows' offset from UTC */
	pg_tz		 *zone;
	text		 *unit;
	MemoryContext scratch;				 /* for what PostgreSQL's functions allocate */
	TruncSlot	  slots[TRUNC_SLOTS];	 /* UTC minute -> bucket of all its instants */
	TruncSlot	  ends[TRUNC_END_SLOTS]; /* bucket -> its end */
};

typedef struct TruncUnit
{
	int	  field; /* DTK_ */
	int64 grain;
	int	  months;
	int	  days;
	int64 usecs;
} TruncUnit;

static const TruncUnit trunc_units[] = { { DTK_MICROSEC, 1, 0, 0, 0 },
										 { DTK_MILLISEC, 1000, 0, 0, 0 },
										 { DTK_SECOND, USECS_PER_SEC, 0, 0, 0 },
										 { DTK_MINUTE, 0, 0, 0, USECS_PER_MINUTE },
										 { DTK_HOUR, 0, 0, 0, USECS_PER_HOUR },
										 { DTK_DAY, 0, 0, 1, 0 },
										 { DTK_WEEK, 0, 0, 7, 0 },
										 { DTK_MONTH, 0, 1, 0, 0 },
										 { DTK_QUARTER, 0, 3, 0, 0 },
										 { DTK_YEAR, 0, 12, 0, 0 },
										 { DTK_DECADE, 0, 120, 0, 0 },
										 { DTK_CENTURY, 0, 1200, 0, 0 },
										 { DTK_MILLENNIUM, 0, 12000, 0, 0 } };

PG_FUNCTION_INFO_V1(streamext_tumble);
PG_FUNCTION_INFO_V1(streamext_hop);
PG_FUNCTION_INFO_V1(streamext_session);


/* ---- int64 that cannot overflow; divisors are positive ---- */

static inline int64
floor_div(int64 a, int64 b)
{
	return a / b - (a % b < 0 ? 1 : 0);
}

static inline int64
floor_mod(int64 a, int64 b)
{
	int64 m = a % b;

	return m < 0 ? m + b : m;
}

/* (a - b) mod m, without the subtraction. */
static inline int64
floor_mod_diff(int64 a, int64 b, int64 m)
{
	int64 diff = floor_mod(a, m) - (b == 0 ? 0 : floor_mod(b, m));

	return diff < 0 ? diff + m : diff;
}

static inline int64
clamped_add(int64 a, int64 b)
{
	int64 result;

	if (unlikely(pg_add_s64_overflow(a, b, &result)))
		return b < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return result;
}

static inline int64
clamped_sub(int64 a, int64 b)
{
	int64 result;

	if (unlikely(pg_sub_s64_overflow(a, b, &result)))
		return b > 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return result;
}

static int64
gcd(int64 a, int64 b)
{
	while (b != 0)
	{
		int64 rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}


/* ---- calendar buckets ---- */

/* The unit by any name that date_trunc knows; raises 22023. */
static const TruncUnit *
trunc_find_unit(const char *name)
{
	char *lower = downcase_truncate_identifier(name, strlen(name), false);
	int	  field;
	int	  i;

	if (DecodeUnits(0, lower, &field) == UNITS)
	{
		for (i = 0; i < lengthof(trunc_units); i++)
		{
			if (trunc_units[i].field == field)
			{
				pfree(lower);
				return &trunc_units[i];
			}
		}
	}
	ereport(
		ERROR,
		(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("date_trunc unit \"%s\" not recognized", lower),
		 errhint(
			 "Valid units are microseconds, milliseconds, second, minute, hour, day, week, month, quarter, year, decade, century, and millennium.")));
	return NULL; /* keep the compiler quiet */
}

/* The zone of a three-argument date_trunc: an abbreviation first, then a full name, as timestamptz_trunc_zone has it. */
static pg_tz *
trunc_find_zone(const char *name)
{
	pg_tz *zone;
#if PG_VERSION_NUM >= 160000
	zone = DecodeTimezoneNameToTz(name);
#else
	char *lower = downcase_truncate_identifier(name, strlen(name), false);
	int	  offset;
	int	  type = DecodeTimezoneAbbrev(0, lower, &offset, &zone);

	if (type == TZ || type == DTZ)
		zone = pg_tzset_offset(-offset);
	else if (type != DYNTZ)
		zone = pg_tzset(name);
	pfree(lower);
#endif
	if (zone == NULL)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("time zone \"%s\" not recognized", name),
						errhint("The view pg_timezone_names lists those there are.")));
	return zone;
}

/* One of PostgreSQL's functions of two arguments under the window's zone. */
static TimestampTz
trunc_call(TruncCache *cache, PGFunction function, Datum a, Datum b)
{
	pg_tz		 *session_zone = session_timezone;
	MemoryContext caller = MemoryContextSwitchTo(cache->scratch);
	TimestampTz	  result;

	PG_TRY();
	{
		session_timezone = cache->zone;
		result = DatumGetTimestampTz(DirectFunctionCall2(function, a, b));
	}
	PG_FINALLY();
	{
		session_timezone = session_zone;
		MemoryContextSwitchTo(caller);
	}
	PG_END_TRY();
	MemoryContextReset(cache->scratch);
	return result;
}

static TimestampTz
trunc_instant(TruncCache *cache, TimestampTz t)
{
	return trunc_call(cache, timestamptz_trunc, PointerGetDatum(cache->unit), TimestampTzGetDatum(t));
}

/* A time before which buckets may begin earlier than the first timestamp, whatever the zone; none of a later one does. */
static TimestampTz
trunc_safe(const TruncCache *cache)
{
	return MIN_TIMESTAMP + cache->max_width + 2 * USECS_PER_DAY;
}

/*
 * The bucket of a finite time. Zones change their offset at whole minutes nowadays, but not in all of history: a minute is
 * cached only if its first and its last instant are in one bucket. (Buckets themselves would be no good as a key: where
 * clocks go back by half an hour, the hours before and after overlap.)
 */
static TimestampTz
trunc_bucket(TruncCache *cache, TimestampTz t)
{
	int64		minute;
	TruncSlot  *slot;
	TimestampTz bucket;

	if (cache->grain != 0)
		return t - floor_mod(t, cache->grain);

	minute = floor_div(t, USECS_PER_MINUTE);
	slot = &cache->slots[minute & (TRUNC_SLOTS - 1)];
	if (likely(slot->key == minute))
		return slot->value;

	if (t < trunc_safe(cache))
		return trunc_instant(cache, t); /* the minute's other instants may have none */
	bucket = trunc_instant(cache, minute * USECS_PER_MINUTE);
	if (trunc_instant(cache, minute * USECS_PER_MINUTE + (USECS_PER_MINUTE - 1)) != bucket)
		return trunc_instant(cache, t);
	slot->key = minute;
	slot->value = bucket;
	return bucket;
}

/* The first instant after the bucket; never raises. */
static TimestampTz
trunc_bucket_end(TruncCache *cache, TimestampTz bucket)
{
	TruncSlot  *slot;
	TimestampTz end;

	if (cache->grain != 0)
		return clamped_add(bucket, cache->grain);
	if (bucket < MIN_TIMESTAMP || bucket >= END_TIMESTAMP - cache->max_width)
		return PG_INT64_MAX;

	slot = &cache->ends[floor_div(bucket, USECS_PER_MINUTE) & (TRUNC_END_SLOTS - 1)];
	if (slot->key == bucket)
		return slot->value;

	end = trunc_call(cache, timestamptz_pl_interval, TimestampTzGetDatum(bucket), IntervalPGetDatum(&cache->width));

	/* A day whose midnight was skipped begins later in the day, which the next one does not. */
	if (!cache->has_time)
	{
		TimestampTz next = trunc_instant(cache, end);

		if (next > bucket && next < end)
			end = next;
	}
	slot->key = bucket;
	slot->value = end;
	return end;
}

static TruncCache *
window_trunc(const Window *window)
{
	if (window->trunc_cache == NULL)
		elog(ERROR, "streamext: window is used before it is prepared");
	return window->trunc_cache;
}

void
streamext_window_prepare(Window *window, MemoryContext cxt)
{
	MemoryContext	 caller;
	const TruncUnit *unit;
	TruncCache		*cache;
	int				 i;

	if (window->kind != WINDOW_TRUNC)
		return;
	unit = trunc_find_unit(window->trunc_unit);

	caller = MemoryContextSwitchTo(cxt);
	cache = palloc0(sizeof(TruncCache));
	cache->grain = unit->grain;
	cache->width.month = unit->months;
	cache->width.day = unit->days;
	cache->width.time = unit->usecs;
	cache->max_width = (unit->months * INT64CONST(31) + unit->days) * USECS_PER_DAY + unit->usecs;
	cache->has_time = unit->usecs != 0;
	cache->zone = window->trunc_zone != NULL ? trunc_find_zone(window->trunc_zone) : session_timezone;
	cache->unit = cstring_to_text(window->trunc_unit);
	cache->scratch = AllocSetContextCreate(cxt, "streamext date_trunc", ALLOCSET_SMALL_SIZES);
	for (i = 0; i < TRUNC_SLOTS; i++)
		cache->slots[i].key = PG_INT64_MIN;
	for (i = 0; i < TRUNC_END_SLOTS; i++)
		cache->ends[i].key = PG_INT64_MIN;
	window->trunc_cache = cache;
	MemoryContextSwitchTo(caller);
}


/* ---- a window's definition ---- */

/* length / 60, at most 1 s unless that were too many panes, at least 1 us; made to divide length. */
static int64
window_default_step(int64 length)
{
	static const int coarser[] = { 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800 };
	int64			 step = Min(length / 60, USECS_PER_SEC);
	int64			 parts;
	int64			 tries;

	if (step <= 1)
		return 1;

	if (length / step > STREAMEXT_MAX_PANES)
	{
		for (int i = 0; i < lengthof(coarser); i++)
			if (length % (coarser[i] * USECS_PER_SEC) == 0 &&
				length / (coarser[i] * USECS_PER_SEC) <= STREAMEXT_MAX_PANES)
				return coarser[i] * USECS_PER_SEC;
		for (parts = STREAMEXT_MAX_PANES; length % parts != 0; parts--)
			;
		return length / parts;
	}

	/* The largest step not above that which divides the length. */
	parts = (length - 1) / step + 1;
	for (tries = 0; tries < 100000; tries++, parts++)
	{
		if (length % parts == 0)
			return length / parts;
	}
	return gcd(length, step);
}

static void
window_check_positive(int64 value, const char *what)
{
	if (value <= 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must be positive", what),
						errhint(WINDOW_HINT_INTERVAL)));
}

static void
window_check_panes(int64 length, int64 part, const char *detail, const char *hint)
{
	if (length / part > STREAMEXT_MAX_PANES)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("window would consist of more than %d panes", STREAMEXT_MAX_PANES),
						errdetail_internal("%s", detail), errhint("%s", hint)));
}

/*
 * What to do about too many panes of a sliding window: the least step that people would write and that is enough, together with the
 * other window, in which panes may have `other` at most (0: there is none).
 */
static const char *
window_step_hint(int64 length, int64 other)
{
	static const int seconds[] = { 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800 };

	for (int i = 0; i < lengthof(seconds); i++)
		if (length % (seconds[i] * USECS_PER_SEC) == 0 &&
			length / gcd(seconds[i] * USECS_PER_SEC, other) <= STREAMEXT_MAX_PANES)
			return psprintf("Set streamext.step to a larger divisor of the length, such as '%d %s'.",
							seconds[i] < 60 ? seconds[i] : seconds[i] / 60, seconds[i] < 60 ? "s" : "min");
	return "Leave streamext.step out, and make the sliding window shorter or what is grouped by wider: windows of a minute or more that divide the length.";
}

/* The sliding predicate's part: narrows the panes to where its edges may fall. */
static void
window_finish_sliding(Window *window)
{
	int64 grain, other = 0;

	window_check_positive(window->length, "length of a sliding window");
	if (window->step == 0)
		window->step = window_default_step(window->length);
	window_check_positive(window->step, "streamext.step");

	if (window->kind == WINDOW_TUMBLE || window->kind == WINDOW_HOP)
		other = gcd(window->pane, floor_mod(window->origin, window->slide));
	else if (window->kind == WINDOW_TRUNC)
	{
		/* Buckets begin at whole seconds in any zone. */
		const TruncUnit *unit = trunc_find_unit(window->trunc_unit);

		other = unit->grain != 0 ? unit->grain : USECS_PER_SEC;
	}
	else if (window->kind == WINDOW_SESSION)
		other = window->size; /* panes no wider than the gap */
	grain = gcd(gcd(window->step, window->length), other);
	window->pane = grain;
	window->edges = true;
	window_check_panes(
		window->length, window->pane,
		"A pane is the greatest common divisor of the sliding window's length, its step, and the other window's size, slide and origin, or gap.",
		window_step_hint(window->length, other));
}

void
streamext_window_finish(Window *window)
{
	window->pane = 0;
	window->edges = false;
	switch (window->kind)
	{
		case WINDOW_NONE:
			window->origin = 0;
			break;
		case WINDOW_TUMBLE:
			window_check_positive(window->size, "window size");
			window->slide = window->size;
			window->pane = window->size;
			break;
		case WINDOW_HOP:
			window_check_positive(window->size, "window size");
			window_check_positive(window->slide, "window slide");
			window->pane = gcd(window->size, window->slide);
			window_check_panes(window->size, window->sliding ? window->slide : window->pane,
							   "A pane is the greatest common divisor of the window's size and slide.",
							   "Choose a larger slide, or one that divides the size.");
			break;
		case WINDOW_TRUNC:
			window->origin = 0;
			(void) trunc_find_unit(window->trunc_unit);
			break;
		case WINDOW_SESSION:
			window_check_positive(window->size, "gap of a session");
			window->origin = 0;
			window->pane = window->size;
			break;
	}
	if (window->sliding)
		window_finish_sliding(window);
}


/* ---- panes ---- */

/* The number of the pane of width window->pane that holds t. */
static inline int64
pane_number(const Window *window, int64 rest, TimestampTz t)
{
	return floor_div(t, window->pane) - (rest != 0 && floor_mod(t, window->pane) < rest ? 1 : 0);
}

/* Where pane 0 begins: origin mod pane. */
static inline int64
pane_rest(const Window *window)
{
	return window->origin == 0 ? 0 : floor_mod(window->origin, window->pane);
}

/* The pane's lower edge; clamped. */
static int64
pane_lower(const Window *window, int64 number)
{
	int64 lower;

	if (pg_mul_s64_overflow(number, window->pane, &lower))
		return number < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return clamped_add(lower, pane_rest(window));
}

static inline int64
pane_id(const Window *window, int64 number, bool beyond_edge)
{
	if (!window->edges)
		return number;
	if (unlikely(number > PG_INT64_MAX / 2))
		return PG_INT64_MAX - 1 + beyond_edge;
	if (unlikely(number < PG_INT64_MIN / 2))
		return PG_INT64_MIN + beyond_edge;
	return number * 2 + beyond_edge;
}

static inline int64
pane_id_number(const Window *window, int64 id)
{
	return window->edges ? floor_div(id, 2) : id;
}

/* A finite time inside of the pane. */
static TimestampTz
pane_instant(const Window *window, int64 id)
{
	int64 lower = pane_lower(window, pane_id_number(window, id));

	return Min(Max(lower, MIN_TIMESTAMP), END_TIMESTAMP - 1);
}

int64
streamext_window_pane(const Window *window, TimestampTz t)
{
	int64		rest;
	TimestampTz lower;

	if (window->pane == 0)
		return window->kind == WINDOW_TRUNC ? trunc_bucket(window_trunc(window), t) : 0;
	rest = pane_rest(window);
	lower = clamped_sub(t, floor_mod_diff(t, rest, window->pane));
	return pane_id(window, pane_number(window, rest, t), t != lower);
}

int64
streamext_window_pane_by(const Window *window, TimestampTz t)
{
	if (window->pane == 0 && window->kind == WINDOW_TRUNC)
	{
		TruncCache *cache = window_trunc(window);

		if (t < trunc_safe(cache) && t < trunc_bucket(cache, trunc_safe(cache)))
			return DT_NOBEGIN;
	}
	return streamext_window_pane(window, t);
}

TimestampTz
streamext_window_pane_time(const Window *window, int64 pane)
{
	if (window->pane == 0)
		return pane;
	return pane_instant(window, pane) + (window->edges && floor_mod(pane, 2) == 1 ? 1 : 0);
}

TimestampTz
streamext_window_pane_end(const Window *window, int64 pane)
{
	if (window->kind == WINDOW_NONE)
		return PG_INT64_MAX;
	if (window->pane == 0)
		return trunc_bucket_end(window_trunc(window), pane);
	return pane_lower(window, clamped_add(pane_id_number(window, pane), 1));
}


/* ---- windows ---- */

/*
 * First and last start of the fixed windows that hold the instant t; none when *first > *last. A tumbling window that
 * starts before the first timestamp is said to start there; hopping ones are left out, lest two have the same name.
 */
static void
window_instant_starts(const Window *window, TimestampTz t, TimestampTz *first, TimestampTz *last)
{
	int64 offset = floor_mod_diff(t, window->origin, window->slide);

	*last = clamped_sub(t, offset);
	if (window->kind == WINDOW_TUMBLE)
	{
		*first = *last = Max(*last, MIN_TIMESTAMP);
		return;
	}
	if (offset >= window->size || *last < MIN_TIMESTAMP)
	{
		*first = 1;
		*last = 0;
		return;
	}
	/* How many more slides may go back before t is at the window's end. */
	*first = clamped_sub(*last, (window->size - 1 - offset) / window->slide * window->slide);
	if (*first < MIN_TIMESTAMP)
		*first = MIN_TIMESTAMP + floor_mod_diff(window->origin, MIN_TIMESTAMP, window->slide);
}

void
streamext_window_pane_range(const Window *window, TimestampTz start, int64 *first, int64 *last)
{
	TimestampTz end;

	*first = 1;
	*last = 0;
	switch (window->kind)
	{
		case WINDOW_NONE:
			*first = window->sliding ? PG_INT64_MIN : 0;
			*last = window->sliding ? PG_INT64_MAX : 0;
			return;
		case WINDOW_TUMBLE:
			/* The first of all windows may have begun before its start. */
			end = clamped_add(start, window->size - floor_mod_diff(start, window->origin, window->slide));
			break;
		case WINDOW_HOP:
			end = clamped_add(start, window->size);
			break;
		case WINDOW_TRUNC:
			if (!window->sliding)
			{
				*first = *last = start;
				return;
			}
			end = trunc_bucket_end(window_trunc(window), start);
			break;
		default:
			return;
	}
	if (TIMESTAMP_NOT_FINITE(start))
		return;
	*first = pane_id(window, pane_number(window, pane_rest(window), start), false);
	*last = pane_id(window, pane_number(window, pane_rest(window), end - 1), true);
}

void
streamext_window_starts(const Window *window, int64 pane, TimestampTz *first, TimestampTz *last)
{
	switch (window->kind)
	{
		case WINDOW_TUMBLE:
		case WINDOW_HOP:
			window_instant_starts(window, pane_instant(window, pane), first, last);
			break;
		case WINDOW_TRUNC:
			*first = pane;
			if (window->sliding)
				*first = trunc_bucket(window_trunc(window), pane_instant(window, pane));
			*last = *first;
			break;
		default:
			*first = 1;
			*last = 0;
			break;
	}
}

TimestampTz
streamext_window_last_end(const Window *window, int64 pane)
{
	TimestampTz first, last;

	if (window->kind == WINDOW_HOP)
	{
		streamext_window_starts(window, pane, &first, &last);
		if (first <= last)
			return clamped_add(last, window->size);
	}
	return streamext_window_pane_end(window, pane);
}

bool
streamext_window_has_ends(const Window *window)
{
	return !window->sliding &&
		   (window->kind == WINDOW_TUMBLE || window->kind == WINDOW_HOP || window->kind == WINDOW_TRUNC);
}

TimestampTz
streamext_window_end(const Window *window, TimestampTz start)
{
	if (window->kind == WINDOW_TRUNC)
		return trunc_bucket_end(window_trunc(window), start);
	if (window->kind == WINDOW_TUMBLE) /* the first of all windows may have begun before its start */
		return clamped_add(start, window->size - floor_mod_diff(start, window->origin, window->slide));
	return clamped_add(start, window->size);
}

/*
 * Only ids differ between > and >=, < and <=: an edge falls on a pane's lower edge, which has the even id to itself.
 */
void
streamext_window_sliding_range(const Window *window, TimestampTz now, int64 *first, int64 *last)
{
	int64 edge;

	*first = PG_INT64_MIN;
	*last = PG_INT64_MAX;
	if (!window->sliding)
		return;

	now = clamped_sub(now, floor_mod(now, window->step));
	edge = floor_div(clamped_sub(now, window->length), window->pane);
	*first = pane_id(window, edge, !window->lower_inclusive);
	if (window->has_upper)
	{
		edge = floor_div(now, window->pane);
		*last = window->upper_inclusive ? pane_id(window, edge, false) : pane_id(window, edge - 1, true);
	}
}


/* ---- SQL ---- */

int64
streamext_interval_usecs(const Interval *interval, const char *what)
{
	int64 usecs;

#if PG_VERSION_NUM >= 170000
	if (INTERVAL_NOT_FINITE(interval))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must be finite", what),
						errhint(WINDOW_HINT_INTERVAL)));
#endif
	if (interval->month != 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s must be a fixed interval", what),
						errdetail("Months and years have no fixed length; a day is 24 hours."),
						errhint("Write it in days or shorter units, such as '30 days'.")));
	if (pg_mul_s64_overflow(interval->day, USECS_PER_DAY, &usecs) || pg_add_s64_overflow(usecs, interval->time, &usecs))
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("%s is out of range", what),
						errhint(WINDOW_HINT_INTERVAL)));
	return usecs;
}

static int64
window_interval_arg(const Interval *interval, const char *what)
{
	int64 usecs = streamext_interval_usecs(interval, what);

	window_check_positive(usecs, what);
	return usecs;
}

/* streamext.tumble(size interval, ts timestamptz): the start of the tumbling window that holds ts; strict. */
Datum
streamext_tumble(PG_FUNCTION_ARGS)
{
	Window		window = { .kind = WINDOW_TUMBLE };
	TimestampTz t = PG_GETARG_TIMESTAMPTZ(1);
	TimestampTz first;
	TimestampTz last;

	window.size = window.slide = window_interval_arg(PG_GETARG_INTERVAL_P(0), "window size");
	if (TIMESTAMP_NOT_FINITE(t))
		PG_RETURN_TIMESTAMPTZ(t);
	window_instant_starts(&window, t, &first, &last);
	PG_RETURN_TIMESTAMPTZ(first);
}

typedef struct HopCall
{
	TimestampTz next;
	TimestampTz last;
	int64		slide;
} HopCall;

/*
 * streamext.hop(size interval, slide interval, ts timestamptz): the starts of the hopping windows that hold ts,
 * ascending; strict.
 */
Datum
streamext_hop(PG_FUNCTION_ARGS)
{
	FuncCallContext *context;
	HopCall			*call;

	if (SRF_IS_FIRSTCALL())
	{
		Window		window = { .kind = WINDOW_HOP };
		TimestampTz t = PG_GETARG_TIMESTAMPTZ(2);

		window.size = window_interval_arg(PG_GETARG_INTERVAL_P(0), "window size");
		window.slide = window_interval_arg(PG_GETARG_INTERVAL_P(1), "window slide");
		if (TIMESTAMP_NOT_FINITE(t))
			ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
							errmsg("an infinite timestamp is in no hopping window")));
		context = SRF_FIRSTCALL_INIT();
		call = MemoryContextAlloc(context->multi_call_memory_ctx, sizeof(HopCall));
		call->slide = window.slide;
		window_instant_starts(&window, t, &call->next, &call->last);
		context->user_fctx = call;
	}

	context = SRF_PERCALL_SETUP();
	call = context->user_fctx;
	if (call->next <= call->last)
	{
		TimestampTz start = call->next;

		call->next = clamped_add(start, call->slide);
		SRF_RETURN_NEXT(context, TimestampTzGetDatum(start));
	}
	SRF_RETURN_DONE(context);
}

/* streamext.session(gap interval, ts timestamptz): known to continuous views only. */
Datum
streamext_session(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_FEATURE_NOT_SUPPORTED), errmsg("streamext.session() works in continuous views only"),
			 errdetail("The window that a row falls into depends on the other rows."),
			 errhint("GROUP BY it in a view WITH (streamext.continuous), and select from that.")));
	PG_RETURN_NULL();
}
