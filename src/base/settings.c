/*
 * base/settings.c
 *		The settings, and whether the library was loaded in time. What they mean is in base/streamext.h.
 *
 * Without shared_preload_libraries the library loads, does nothing, and CREATE EXTENSION says what is missing.
 */
#include "base/streamext.h"

#include <math.h>

#include "utils/guc.h"

#include "base/fault.h"
#include "base/settings.h"

PG_FUNCTION_INFO_V1(streamext_require_preload_sql);

/* References into the area are 32-bit numbers of 8-byte units (base/chunk.h). */
#define MEMORY_LIMIT_MAX_MB 32767
#define MEMORY_LIMIT_MIN_MB 16

int			streamext_checkpoint_interval = 1000;
int			streamext_memory_limit_mb = 256;
int			streamext_max_streams = 64;
int			streamext_max_views = 256;
int			streamext_dead_letter_limit = 10000;
int			streamext_outbox_limit = 100000;
int			streamext_delivery_timeout = 120;
int			streamext_late_row_limit = 10000;
int			streamext_catchup_min_rows = 100000;
int			streamext_journal_limit_mb = 16384;
int			streamext_view_time_limit_ms = 5000;
int			streamext_owner_memory_share = 100;
int			streamext_owner_workers = 0;
int			streamext_owner_streams = 0;
int			streamext_owner_views = 0;
int			streamext_teller_memory_mb = 1024;
int			streamext_owner_stream_share = 50;
static bool settings_preloaded = false; /* by shared_preload_libraries */

/*
 * Settings with a unit of which zero is none. Of a setting that is an integer PostgreSQL rounds '100kB' to 0 MB, and the limit would be gone: these are
 * kept as given, and a part of the unit counts as a whole one.
 */
static double settings_checkpoint_interval;
static double settings_journal_limit;
static double settings_view_time_limit;
static double settings_teller_memory;

static void
settings_assign_checkpoint_interval(double given, void *extra)
{
	streamext_checkpoint_interval = (int) ceil(given);
}

static void
settings_assign_journal_limit(double given, void *extra)
{
	streamext_journal_limit_mb = (int) ceil(given);
}

static void
settings_assign_view_time_limit(double given, void *extra)
{
	streamext_view_time_limit_ms = (int) ceil(given);
}

#define SETTINGS_TELLER_MIN 16 /* MB; with some MB its process cannot even note that a view has failed */

static void
settings_assign_teller_memory(double given, void *extra)
{
	streamext_teller_memory_mb = given > 0 ? Max((int) ceil(given), SETTINGS_TELLER_MIN) : 0;
}

/* What one owner may take of it all. */
static void
settings_define_owners(void)
{
	DefineCustomIntVariable("streamext.owner_memory_share",
							"Percent of streamext.memory_limit that the views of one owner may use.",
							"Beyond it the owner's views stop, each by itself.", &streamext_owner_memory_share, 100, 1,
							100, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable(
		"streamext.owner_stream_share", "Percent of streamext.max_streams that the views of one owner may take.",
		"A view over views takes one place, one with UNION ALL one for each part. Superusers' are not "
		"counted.",
		&streamext_owner_stream_share, 50, 1, 100, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.owner_streams", "Places of streamext.max_streams that one owner may have.",
							"Further streams are refused. Superusers' are not counted. Zero: no limit.",
							&streamext_owner_streams, 0, 0, 4096, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.owner_views", "Places of streamext.max_views that one owner may have.",
							"Further continuous views are refused. Superusers' are not counted. Zero: no limit.",
							&streamext_owner_views, 0, 0, 65536, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.owner_workers", "Workers that the streams of one owner may have.",
							"Further streams of the owner wait. Zero: no limit.", &streamext_owner_workers, 0, 0, 4096,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

void
streamext_define_settings(void)
{
	settings_preloaded = true;
	DefineCustomIntVariable("streamext.memory_limit",
							"Memory for the state of continuous views and the buffers of streams.",
							"Reserved in shared memory at server start.", &streamext_memory_limit_mb, 256,
							MEMORY_LIMIT_MIN_MB, MEMORY_LIMIT_MAX_MB, PGC_POSTMASTER, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.max_streams", "Maximum number of streams in all databases.",
							"A stream with several workers counts once for each.", &streamext_max_streams, 64, 1, 4096,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.max_views", "Maximum number of continuous views in all databases.",
							"A view on a stream with several workers counts once for each.", &streamext_max_views, 256,
							1, 65536, PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.dead_letter_limit", "Rejected records kept for each stream.",
							"Zero counts rejected records and keeps none.", &streamext_dead_letter_limit, 10000, 0,
							INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.outbox_limit",
							"Rows that may wait to be sent to each foreign table of streamext.into or INSERT.",
							"Beyond it INSERT is refused, and windows of views wait in the views.",
							&streamext_outbox_limit, 100000, 1, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.delivery_timeout", "Time that a set of rows may take to be sent to Kafka.",
							"A client that has not come back by then is replaced by a new one.",
							&streamext_delivery_timeout, 120, 1, 3600, PGC_SIGHUP, GUC_UNIT_S, NULL, NULL, NULL);
	DefineCustomIntVariable("streamext.late_row_limit", "Late rows kept for each stream.",
							"Of views with streamext.keep_late. Zero counts late rows and keeps none.",
							&streamext_late_row_limit, 10000, 0, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("streamext.journal_limit", "Size of the journal of a stream, for each of its workers.",
							 "Above it INSERT fails and MQTT messages stay with the broker. "
							 "Less than 64 MB is taken as 64 MB. Zero: no limit.",
							 &settings_journal_limit, 16384, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB, NULL,
							 settings_assign_journal_limit, NULL);
	DefineCustomIntVariable(
		"streamext.catchup_min_rows",
		"Records that a continuous view must be behind to catch up in a worker of its own.",
		"While it catches up in the stream's own worker, the stream's other views wait. -1: always so.",
		&streamext_catchup_min_rows, 100000, -1, INT_MAX, PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomRealVariable(
		"streamext.view_time_limit", "Time that a continuous view may take for a batch of its stream's records.",
		"A view that takes longer goes on by itself, so that the stream's other views do not wait for "
		"it. Zero: no limit.",
		&settings_view_time_limit, 5000, 0, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL, settings_assign_view_time_limit,
		NULL);
	DefineCustomRealVariable(
		"streamext.teller_memory", "Memory that the process may use that evaluates alerts and tells of changes.",
		"A view that needs more fails, by itself. Less than 16 MB is taken as 16 MB. Zero: no limit.",
		&settings_teller_memory, 1024, 0, INT_MAX, PGC_SIGHUP, GUC_UNIT_MB, NULL, settings_assign_teller_memory, NULL);
	DefineCustomRealVariable("streamext.checkpoint_interval", "Time between two checkpoints of a stream's views.",
							 "Zero: only when the server stops. Checkpoints that take long come less often.",
							 &settings_checkpoint_interval, 1000, 0, 3600 * 1000, PGC_SIGHUP, GUC_UNIT_MS, NULL,
							 settings_assign_checkpoint_interval, NULL);
	DefineCustomStringVariable("streamext.fault_point", "For tests: where a worker kills itself.", NULL,
							   &streamext_fault_point, "", PGC_SUSET, GUC_NOT_IN_SAMPLE, NULL, NULL, NULL);
	settings_define_owners();
	MarkGUCPrefixReserved("streamext");
}

void
streamext_require_preload(void)
{
	if (settings_preloaded)
		return;
	ereport(ERROR, (errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					errmsg("streamext must be loaded with shared_preload_libraries"),
					errhint("Add streamext to shared_preload_libraries in postgresql.conf and restart the server.")));
}

/* For the install script. */
Datum
streamext_require_preload_sql(PG_FUNCTION_ARGS)
{
	streamext_require_preload();
	PG_RETURN_VOID();
}
