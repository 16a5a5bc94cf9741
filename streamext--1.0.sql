/* streamext--1.0.sql: what CREATE EXTENSION streamext makes. */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION streamext" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;

-- Raises unless the server has loaded the library at start: nothing below would work.
CREATE FUNCTION streamext.require_preload() RETURNS void
LANGUAGE c VOLATILE
AS 'MODULE_PATHNAME', 'streamext_require_preload_sql';

SELECT streamext.require_preload();

REVOKE ALL ON FUNCTION streamext.require_preload() FROM PUBLIC;

GRANT USAGE ON SCHEMA streamext TO PUBLIC;

/* ---- connectors ---- */

CREATE FUNCTION streamext.fdw_handler() RETURNS fdw_handler
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'streamext_fdw_handler';

CREATE FUNCTION streamext.kafka_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'streamext_kafka_validator';

CREATE FUNCTION streamext.mqtt_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'streamext_mqtt_validator';

CREATE FUNCTION streamext.local_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'streamext_local_validator';

-- Who may make servers of a wrapper is decided by GRANT USAGE ON FOREIGN DATA WRAPPER; at first only superusers may.
CREATE FOREIGN DATA WRAPPER kafka HANDLER streamext.fdw_handler VALIDATOR streamext.kafka_validator;
CREATE FOREIGN DATA WRAPPER mqtt HANDLER streamext.fdw_handler VALIDATOR streamext.mqtt_validator;
CREATE FOREIGN DATA WRAPPER local HANDLER streamext.fdw_handler VALIDATOR streamext.local_validator;

COMMENT ON FOREIGN DATA WRAPPER kafka IS 'streams of Kafka topics';
COMMENT ON FOREIGN DATA WRAPPER mqtt IS 'streams of MQTT messages';
COMMENT ON FOREIGN DATA WRAPPER local IS 'streams fed by INSERT and COPY';

/* ---- windows ---- */

CREATE FUNCTION streamext.tumble(size interval, ts timestamptz) RETURNS timestamptz
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_tumble';

CREATE FUNCTION streamext.hop(size interval, slide interval, ts timestamptz) RETURNS SETOF timestamptz
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE ROWS 6
AS 'MODULE_PATHNAME', 'streamext_hop';

CREATE FUNCTION streamext.session(gap interval, ts timestamptz) RETURNS timestamptz
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_session';

COMMENT ON FUNCTION streamext.tumble(interval, timestamptz) IS
'start of the window of the given size that holds ts; windows are aligned to 2000-01-01 00:00 UTC, a day is 24 hours';
COMMENT ON FUNCTION streamext.hop(interval, interval, timestamptz) IS
'starts of all windows of the given size, one begun each slide, that hold ts; aligned to 2000-01-01 00:00 UTC, a day is 24 hours';
COMMENT ON FUNCTION streamext.session(interval, timestamptz) IS
'in a continuous view: start of the session that holds ts; a row opens a new session when it is more than gap after the one before';

-- What the planner puts in the place of a continuous view's query. It is never run as a function and raises if it is.
CREATE FUNCTION streamext.view_rows(view oid) RETURNS SETOF record
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_view_rows';

COMMENT ON FUNCTION streamext.view_rows(oid) IS 'internal: the scan of a continuous view in query plans';

/* ---- rejected records ---- */

-- Not dumped (no pg_extension_config_dump): the records are of this server's streams, known by OID, and the sources still have them.
CREATE TABLE streamext.dead_letter (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	stream oid NOT NULL,
	view oid NOT NULL DEFAULT 0,
	topic text NOT NULL,
	partition integer NOT NULL,
	position bigint NOT NULL,
	received_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	sqlstate text NOT NULL,
	reason text NOT NULL,
	payload bytea,
	source bigint NOT NULL DEFAULT 0,	-- 0: what the stream reads now; else the streamext.seek that left the letter's source behind
	record bytea NOT NULL,	-- what else is to be known to read it again (dead_letter.h)
	whole boolean NOT NULL,	-- payload and record are not cut
	done oid[] NOT NULL DEFAULT '{}',	-- of a letter of the whole stream: views that have counted the record
	retry bigint NOT NULL DEFAULT 0		-- the retry_request by which the view has counted it, in a state that no checkpoint holds yet
);

-- One rejection of a record for each view (0: for the whole stream), however often it is read again.
CREATE UNIQUE INDEX dead_letter_record ON streamext.dead_letter (stream, partition, position, view, topic, source);
-- The newest of a stream are kept.
CREATE INDEX dead_letter_stream ON streamext.dead_letter (stream, id);

COMMENT ON TABLE streamext.dead_letter IS 'rejected records; read them in streamext.dead_letters';

-- Payloads are the stream's data: they are for who may SELECT from the stream, not for monitoring roles.
CREATE VIEW streamext.dead_letters WITH (security_barrier) AS
SELECT d.id, d.stream::pg_catalog.regclass AS stream, (CASE WHEN d.view OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN d.view END)::pg_catalog.regclass AS view,
       d.topic, d.partition, d.position, d.received_at, d.sqlstate, d.reason, d.payload
FROM streamext.dead_letter AS d
WHERE pg_catalog.has_table_privilege(d.stream, 'SELECT');

COMMENT ON VIEW streamext.dead_letters IS 'rejected records of the streams that the user may read';
COMMENT ON COLUMN streamext.dead_letters.view IS 'the continuous view that could not count the record; NULL: no view has it';
COMMENT ON COLUMN streamext.dead_letters.position IS 'Kafka offset; position in the journal for other connectors';
COMMENT ON COLUMN streamext.dead_letters.received_at IS 'when the record was rejected, the last time';
COMMENT ON COLUMN streamext.dead_letters.payload IS 'the record as received; at most 1 MB of it';

/* ---- late rows ---- */

-- Not dumped, like the rejected ones.
CREATE TABLE streamext.late_row (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	stream oid NOT NULL,
	view oid NOT NULL,
	topic text NOT NULL,
	partition integer NOT NULL,
	position bigint NOT NULL,
	event_time timestamptz NOT NULL,
	received_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	payload bytea
);

CREATE UNIQUE INDEX late_row_record ON streamext.late_row (stream, view, topic, partition, position);
CREATE INDEX late_row_stream ON streamext.late_row (stream, id);

COMMENT ON TABLE streamext.late_row IS 'rows that came too late for views with streamext.keep_late; read them in streamext.late_rows';

CREATE VIEW streamext.late_rows WITH (security_barrier) AS
SELECT l.id, l.stream::pg_catalog.regclass AS stream, l.view::pg_catalog.regclass AS view,
       l.topic, l.partition, l.position, l.event_time, l.received_at, l.payload
FROM streamext.late_row AS l
WHERE pg_catalog.has_table_privilege(l.stream, 'SELECT');

COMMENT ON VIEW streamext.late_rows IS 'late rows of the streams that the user may read, for views with streamext.keep_late';
COMMENT ON COLUMN streamext.late_rows.view IS 'the continuous view that has not counted the row';
COMMENT ON COLUMN streamext.late_rows.position IS 'Kafka offset; position in the journal for other connectors';
COMMENT ON COLUMN streamext.late_rows.received_at IS 'when it was found late';
COMMENT ON COLUMN streamext.late_rows.payload IS 'the record as received; at most 1 MB of it';

/* ---- views that write into tables ---- */

-- Where each view with streamext.into stands, written with its rows. Not dumped, as dead_letter: OIDs and positions are this server's.
CREATE TABLE streamext.into_position (
	view oid NOT NULL,
	stream oid NOT NULL,
	topic text NOT NULL,
	partition integer NOT NULL,
	position bigint NOT NULL,
	accepted bigint NOT NULL,
	rejected bigint NOT NULL,
	PRIMARY KEY (view, stream, topic, partition)
) WITH (fillfactor = 50);

COMMENT ON TABLE streamext.into_position IS 'next offset of each view with streamext.into, and how many records it has counted: the rows of everything before are in its table';

-- The same for windows. Not dumped either.
CREATE TABLE streamext.into_window (
	view oid PRIMARY KEY,
	written_until timestamptz NOT NULL
) WITH (fillfactor = 50);

COMMENT ON TABLE streamext.into_window IS 'of each view with windows and streamext.into: windows that end by then are in its table; of sessions, those whose last row is not after it';

/* ---- what happened to sources ---- */

-- Not dumped, as dead_letter is not.
CREATE TABLE streamext.stream_event (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	"time" timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	stream oid NOT NULL,
	kind text NOT NULL,
	topic text,
	partition integer,
	missed bigint NOT NULL,
	detail text NOT NULL
);

-- The newest of a stream are kept.
CREATE INDEX stream_event_stream ON streamext.stream_event (stream, id);

COMMENT ON TABLE streamext.stream_event IS 'what happened to streams'' sources; read it in streamext.stream_events';

CREATE VIEW streamext.stream_events WITH (security_barrier) AS
SELECT e.id, e."time", e.stream::pg_catalog.regclass AS stream, e.kind, e.topic, e.partition, e.missed, e.detail
FROM streamext.stream_event AS e
WHERE pg_catalog.has_table_privilege(e.stream, 'SELECT') OR
      (pg_catalog.has_table_privilege(e.stream, 'SELECT') IS NOT NULL AND pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE'));

COMMENT ON VIEW streamext.stream_events IS 'what happened to the sources of streams; the newest 1000 of each';
COMMENT ON COLUMN streamext.stream_events.kind IS
'gap (records were gone before they were read), diverged (not the source read before), stalled (source unreachable), recovered, seek (streamext.seek was done), retry (streamext.retry_dead_letters was done)';
COMMENT ON COLUMN streamext.stream_events.missed IS 'of a gap or a seek: how many offsets';

/* ---- sealed windows ---- */

-- Slices of panes, inserted once, written and read by the library alone. Not dumped (no pg_extension_config_dump): views and
-- streams are known by OID, and what a slice holds is this build's memory. Readers find it through their views.
CREATE TABLE streamext.history (
	view oid NOT NULL,
	shard integer NOT NULL,
	pane bigint NOT NULL,
	bucket integer NOT NULL,
	part integer NOT NULL,
	definition bigint NOT NULL,
	nrows bigint NOT NULL,
	data bytea NOT NULL,
	CONSTRAINT history_pkey PRIMARY KEY (view, shard, pane, bucket, part)
) USING heap WITH (toast_tuple_target = 8160);

REVOKE ALL ON TABLE streamext.history FROM PUBLIC;

COMMENT ON TABLE streamext.history IS 'internal: sealed windows of continuous views, as slices of their state';

/* ---- checkpoints ---- */

/*
 * The state of all streams' views, written by their workers only (checkpoint_log.h says what is in it). Not dumped (no
 * pg_extension_config_dump): it is of this server's streams, known by OID. Rows are never updated or deleted, and the file is replaced
 * when it has grown, so there is nothing to vacuum. In one ALTER TABLE, so that it gets no TOAST table.
 */
CREATE TABLE streamext.checkpoint_log (
	seq bigint NOT NULL,
	pane bigint NOT NULL,
	stream oid NOT NULL,
	view oid NOT NULL,
	shard integer NOT NULL,
	part integer NOT NULL,
	kind "char" NOT NULL
) WITH (autovacuum_enabled = off);

ALTER TABLE streamext.checkpoint_log ADD COLUMN data bytea NOT NULL, ALTER COLUMN data SET STORAGE PLAIN;

REVOKE ALL ON streamext.checkpoint_log FROM PUBLIC;

COMMENT ON TABLE streamext.checkpoint_log IS 'internal: checkpoints of continuous views';

/* ---- what is paused ---- */

-- Written by streamext.pause and streamext.resume, read by workers. Not dumped: what is restored runs.
CREATE TABLE streamext.paused (
	relation oid PRIMARY KEY,
	since timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);

COMMENT ON TABLE streamext.paused IS 'internal: streams and continuous views that are paused';

/* ---- where streams shall go on ---- */

-- Written by streamext.seek, read and deleted by workers. Not dumped, as positions are not.
CREATE TABLE streamext.seek_request (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	stream oid NOT NULL,
	shard integer NOT NULL,
	source bigint NOT NULL,
	kind integer NOT NULL,
	"time" timestamptz NOT NULL,
	topic text,
	partition integer NOT NULL,
	"offset" bigint NOT NULL,
	rebuild boolean NOT NULL,
	accept boolean NOT NULL,
	topics text[] NOT NULL,
	partitions integer[] NOT NULL,
	positions bigint[] NOT NULL,
	target_topics text[],
	target_partitions integer[],
	targets bigint[]
);

COMMENT ON TABLE streamext.seek_request IS 'internal: calls of streamext.seek that are not in a checkpoint yet';

/* ---- dead letters to be tried again ---- */

-- Written by streamext.retry_dead_letters, read and deleted by workers. Not dumped, as the letters are not.
CREATE TABLE streamext.retry_request (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	stream oid NOT NULL,
	shard integer NOT NULL,
	source bigint NOT NULL,
	letters bigint[] NOT NULL,
	decoded integer NOT NULL DEFAULT 0
);

COMMENT ON TABLE streamext.retry_request IS 'internal: calls of streamext.retry_dead_letters that are not in a checkpoint yet';

/* ---- how often views were begun anew ---- */

-- Written by streamext.rebuild, read by workers. Not dumped: what is restored begins anyway.
CREATE TABLE streamext.round (
	view oid PRIMARY KEY,
	number bigint NOT NULL
);

COMMENT ON TABLE streamext.round IS 'internal: how often streamext.rebuild was called for a continuous view';

/* ---- what there is, and how it does ---- */

-- These functions show rows only of what the user may SELECT from, or has the rights of pg_read_all_stats (pg_monitor).

CREATE FUNCTION streamext.get_streams(
	OUT stream regclass, OUT connector text, OUT format text, OUT state text, OUT workers integer, OUT rows_in bigint, OUT bytes_in bigint,
	OUT rate double precision, OUT watermark timestamptz, OUT lag_rows bigint, OUT lag_seconds double precision, OUT rejected bigint,
	OUT last_error text, OUT last_error_at timestamptz) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_get_streams';

CREATE FUNCTION streamext.get_stream_partitions(
	OUT stream regclass, OUT topic text, OUT partition integer, OUT shard integer, OUT "position" bigint, OUT high_watermark bigint,
	OUT lag_rows bigint, OUT rows_in bigint, OUT missed bigint, OUT max_event_time timestamptz, OUT last_arrival timestamptz,
	OUT journal_begin bigint, OUT journal_end bigint, OUT journal_bytes bigint) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_get_stream_partitions';

CREATE FUNCTION streamext.get_continuous_views(
	OUT view regclass, OUT stream regclass, OUT window_kind text, OUT window_size text, OUT window_slide text, OUT sliding text,
	OUT state text, OUT groups bigint, OUT open_windows bigint, OUT state_bytes bigint, OUT accepted bigint, OUT late bigint,
	OUT rejected bigint, OUT timezone text, OUT datestyle text, OUT intervalstyle text, OUT options text[], OUT last_error text,
	OUT last_checkpoint timestamptz, OUT catchup_rows bigint, OUT catchup_total bigint, OUT catchup_until timestamptz,
	OUT history_panes bigint, OUT history_bytes bigint, OUT sealed_until timestamptz) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_get_continuous_views';

CREATE FUNCTION streamext.get_workers(
	OUT pid integer, OUT stream regclass, OUT shard integer, OUT state text, OUT started_at timestamptz, OUT restarts bigint,
	OUT task text, OUT checkpoint_seq bigint, OUT checkpoint_at timestamptz, OUT checkpoint_bytes bigint, OUT checkpoint_ms double precision,
	OUT checkpoint_pending boolean)
RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_get_workers';

CREATE VIEW streamext.streams AS
SELECT s.stream, s.connector, s.format, s.state, s.workers, s.rows_in, s.bytes_in, s.rate, s.watermark, s.lag_rows, s.lag_seconds,
       s.rejected, s.last_error, s.last_error_at
FROM streamext.get_streams() AS s;

CREATE VIEW streamext.stream_partitions AS
SELECT p.stream, p.topic, p.partition, p.shard, p.position, p.high_watermark, p.lag_rows, p.rows_in, p.missed, p.max_event_time, p.last_arrival,
       p.journal_begin, p.journal_end, p.journal_bytes
FROM streamext.get_stream_partitions() AS p;

CREATE VIEW streamext.continuous_views AS
SELECT v.view, v.stream, pg_catalog.pg_get_viewdef(v.view::pg_catalog.oid) AS definition, v.window_kind, v.window_size, v.window_slide,
       v.sliding, v.state, v.groups, v.open_windows, v.state_bytes, v.accepted, v.late, v.rejected, v.timezone, v.datestyle,
       v.intervalstyle, v.options, v.last_error, v.last_checkpoint, v.catchup_rows, v.catchup_total, v.catchup_until,
       v.history_panes, v.history_bytes, v.sealed_until
FROM streamext.get_continuous_views() AS v;

CREATE VIEW streamext.workers AS
SELECT w.pid, w.stream, w.shard, w.state, w.started_at, w.restarts, w.task, w.checkpoint_seq, w.checkpoint_at, w.checkpoint_bytes,
       w.checkpoint_ms, w.checkpoint_pending
FROM streamext.get_workers() AS w;

COMMENT ON VIEW streamext.streams IS 'a row for each stream; counts are since reading began; checkpoints carry them over restarts';
COMMENT ON COLUMN streamext.streams.state IS
'running, catching_up, paused, stalled (source unreachable), diverged (not the source read before), full (memory limit), waiting (no worker), failed';
COMMENT ON COLUMN streamext.streams.workers IS 'shards that have a slot';
COMMENT ON COLUMN streamext.streams.rows_in IS 'records delivered by the source';
COMMENT ON COLUMN streamext.streams.bytes_in IS 'bytes of their payloads';
COMMENT ON COLUMN streamext.streams.rate IS 'records a second, over about the last 10 s';
COMMENT ON COLUMN streamext.streams.watermark IS 'no record before this event time is expected any more; the lowest of all shards';
COMMENT ON COLUMN streamext.streams.lag_rows IS 'records that the source holds beyond what was read; NULL: not known';
COMMENT ON COLUMN streamext.streams.lag_seconds IS 'seconds from the newest event time (or else arrival) to now; grows while the source is silent';
COMMENT ON COLUMN streamext.streams.rejected IS 'records rejected for all views: malformed, without event time, NULL in a NOT NULL column';

COMMENT ON VIEW streamext.stream_partitions IS 'a row for each partition of a stream';
COMMENT ON COLUMN streamext.stream_partitions.shard IS 'number of the worker that reads it';
COMMENT ON COLUMN streamext.stream_partitions.position IS 'next to be read: Kafka offset, or byte position in the journal';
COMMENT ON COLUMN streamext.stream_partitions.high_watermark IS 'end of the partition as last heard from the source';
COMMENT ON COLUMN streamext.stream_partitions.lag_rows IS 'records between position and high_watermark; NULL: not known';
COMMENT ON COLUMN streamext.stream_partitions.missed IS 'records that the source had lost (retention, deletion) before they were read; see stream_events';
COMMENT ON COLUMN streamext.stream_partitions.last_arrival IS 'when the last record came in';
COMMENT ON COLUMN streamext.stream_partitions.journal_begin IS 'first byte position that the journal still holds; NULL: no journal, or not opened since the server''s start';
COMMENT ON COLUMN streamext.stream_partitions.journal_end IS 'where the next record goes; rows of open and rolled back transactions lie before it too';
COMMENT ON COLUMN streamext.stream_partitions.journal_bytes IS 'what the journal takes on disk; streamext.journal_limit bounds it';

COMMENT ON VIEW streamext.continuous_views IS 'a row for each continuous view; counts are since its state was begun';
COMMENT ON COLUMN streamext.continuous_views.window_kind IS 'tumble (also date_bin), hop, trunc (date_trunc), session, none';
COMMENT ON COLUMN streamext.continuous_views.window_size IS 'size, or gap of a session, as an interval; unit of date_trunc';
COMMENT ON COLUMN streamext.continuous_views.sliding IS 'length of the window that slides over now, as an interval';
COMMENT ON COLUMN streamext.continuous_views.state IS 'as in streams; failed and full may be of the view alone';
COMMENT ON COLUMN streamext.continuous_views.groups IS 'groups kept, counted once in each pane';
COMMENT ON COLUMN streamext.continuous_views.open_windows IS 'panes kept in memory: the windows of a tumbling view, slices of windows else';
COMMENT ON COLUMN streamext.continuous_views.state_bytes IS 'shared memory taken';
COMMENT ON COLUMN streamext.continuous_views.accepted IS 'records counted; accepted + late + rejected = delivered';
COMMENT ON COLUMN streamext.continuous_views.late IS 'records left out because their window had been sealed';
COMMENT ON COLUMN streamext.continuous_views.rejected IS 'records left out because an expression of the view raised an error, or rejected for the stream';
COMMENT ON COLUMN streamext.continuous_views.last_checkpoint IS 'the moment of the last checkpoint that holds the view; NULL: none yet';
COMMENT ON COLUMN streamext.continuous_views.timezone IS 'TimeZone under which the view''s expressions run';

COMMENT ON COLUMN streamext.continuous_views.catchup_rows IS 'while catching up: records read since it began; else NULL';
COMMENT ON COLUMN streamext.continuous_views.catchup_total IS 'while catching up: records to be read in all, as far as known; grows with the stream';
COMMENT ON COLUMN streamext.continuous_views.catchup_until IS 'when that will be done at the present pace';

COMMENT ON COLUMN streamext.continuous_views.history_panes IS 'sealed panes moved from memory to the table streamext.history';
COMMENT ON COLUMN streamext.continuous_views.history_bytes IS 'their size before compression';
COMMENT ON COLUMN streamext.continuous_views.sealed_until IS 'end of the last pane in history; NULL: none is';

COMMENT ON VIEW streamext.workers IS
'a row for each stream and shard, pid is NULL while no process runs; one more while new views catch up in a process of their own';
COMMENT ON COLUMN streamext.workers.task IS 'stream, or catch_up';
COMMENT ON COLUMN streamext.workers.restarts IS 'starts after the first';
COMMENT ON COLUMN streamext.workers.checkpoint_seq IS 'number of the last checkpoint; NULL: none yet';
COMMENT ON COLUMN streamext.workers.checkpoint_at IS 'the moment that it holds';
COMMENT ON COLUMN streamext.workers.checkpoint_bytes IS 'bytes written for it: what had changed since the one before; NULL: before the server''s start';
COMMENT ON COLUMN streamext.workers.checkpoint_ms IS 'milliseconds that the worker spent on it';
COMMENT ON COLUMN streamext.workers.checkpoint_pending IS 'whether something has changed since that moment';

GRANT SELECT ON streamext.streams, streamext.stream_partitions, streamext.continuous_views, streamext.workers, streamext.dead_letters,
	streamext.late_rows, streamext.stream_events TO PUBLIC;

/* ---- control ---- */

CREATE FUNCTION streamext.flush(stream regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_flush';

CREATE FUNCTION streamext.pause(name regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_pause';

CREATE FUNCTION streamext.resume(name regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_resume';

CREATE FUNCTION streamext.seek(stream regclass, "position" text, rebuild boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_seek';

CREATE FUNCTION streamext.seek(stream regclass, "to" timestamptz, rebuild boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_seek_time';

CREATE FUNCTION streamext.seek(stream regclass, topic text, partition integer, "offset" bigint, rebuild boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_seek_offset';

CREATE FUNCTION streamext.retry_dead_letters(stream regclass, view regclass DEFAULT NULL, ids bigint[] DEFAULT NULL) RETURNS bigint
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_retry_dead_letters';

CREATE FUNCTION streamext.rebuild(view regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_rebuild';

CREATE FUNCTION streamext.view_positions(view regclass, OUT partition integer, OUT next_offset bigint, OUT topic text) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_view_positions';

CREATE FUNCTION streamext.set_clock(now timestamptz) RETURNS void
LANGUAGE c VOLATILE CALLED ON NULL INPUT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_set_clock';

REVOKE ALL ON FUNCTION streamext.set_clock(timestamptz) FROM PUBLIC;

COMMENT ON FUNCTION streamext.flush(regclass) IS
'waits until everything that the source holds now is in every view of the stream that is not paused; raises if the stream is paused or has failed';
COMMENT ON FUNCTION streamext.pause(regclass) IS
'stops reading a stream, at once, or counting in a continuous view, from commit on, until streamext.resume; for its owner';
COMMENT ON FUNCTION streamext.resume(regclass) IS
'goes on with a paused or stopped stream, or a paused continuous view, which reads what it has missed; for its owner';
COMMENT ON FUNCTION streamext.seek(regclass, text, boolean) IS
'from commit on the stream goes on at earliest, latest or a time: forward it skips records, back it does nothing without rebuild, which counts all views anew from there; a diverged stream takes the source as it is now; for its owner';
COMMENT ON FUNCTION streamext.seek(regclass, timestamptz, boolean) IS
'from commit on the stream goes on at the first record of this time or later, as the source has it; for its owner';
COMMENT ON FUNCTION streamext.seek(regclass, text, integer, bigint, boolean) IS
'from commit on the stream goes on at this offset in this partition; for its owner';
COMMENT ON FUNCTION streamext.retry_dead_letters(regclass, regclass, bigint[]) IS
'from commit on decodes dead letters of a stream again, of all, one view or these ids, and counts them in the views that had rejected them; how many are tried; flush waits for it; for its owner';
COMMENT ON FUNCTION streamext.rebuild(regclass) IS
'from commit on counts a continuous view anew from the stream''s start; it shows its former content until it has caught up; for its owner';
COMMENT ON FUNCTION streamext.view_positions(regclass) IS 'next offset of each partition: everything before it is counted in the view';
COMMENT ON FUNCTION streamext.set_clock(timestamptz) IS
'for tests: replaces the clock of windows in the whole server; NULL gives the system''s back; superusers only';

/* ---- approximate aggregates, first and last: ordinary aggregates, in continuous views and over tables ---- */

CREATE TYPE streamext.distinct_sketch;

CREATE FUNCTION streamext.distinct_sketch_in(cstring) RETURNS streamext.distinct_sketch
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_distinct_in';
CREATE FUNCTION streamext.distinct_sketch_out(streamext.distinct_sketch) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_sketch_out';
CREATE FUNCTION streamext.distinct_sketch_recv(internal) RETURNS streamext.distinct_sketch
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_distinct_recv';
CREATE FUNCTION streamext.distinct_sketch_send(streamext.distinct_sketch) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_sketch_send';

CREATE TYPE streamext.distinct_sketch (
	INPUT = streamext.distinct_sketch_in, OUTPUT = streamext.distinct_sketch_out,
	RECEIVE = streamext.distinct_sketch_recv, SEND = streamext.distinct_sketch_send,
	INTERNALLENGTH = VARIABLE, ALIGNMENT = double, STORAGE = extended);
COMMENT ON TYPE streamext.distinct_sketch IS 'the distinct values of a column, as HyperLogLog: standard error 1.6 %, nearly exact up to 256 values';

CREATE FUNCTION streamext.distinct_sketch_add(streamext.distinct_sketch, anyelement) RETURNS streamext.distinct_sketch
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_distinct_add';
CREATE FUNCTION streamext.distinct_sketch_merge(streamext.distinct_sketch, streamext.distinct_sketch) RETURNS streamext.distinct_sketch
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_distinct_merge';
CREATE FUNCTION streamext.cardinality(streamext.distinct_sketch) RETURNS bigint
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_distinct_estimate';
COMMENT ON FUNCTION streamext.cardinality(streamext.distinct_sketch) IS 'about how many distinct values: standard error 1.6 %; 0 for NULL';

CREATE AGGREGATE streamext.approx_count_distinct(anyelement) (
	SFUNC = streamext.distinct_sketch_add, STYPE = streamext.distinct_sketch, SSPACE = 512,
	FINALFUNC = streamext.cardinality, COMBINEFUNC = streamext.distinct_sketch_merge, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.approx_count_distinct(anyelement) IS 'about count(DISTINCT x): standard error 1.6 %, nearly exact up to 256 values';
CREATE AGGREGATE streamext.sketch_distinct(anyelement) (
	SFUNC = streamext.distinct_sketch_add, STYPE = streamext.distinct_sketch, SSPACE = 512,
	COMBINEFUNC = streamext.distinct_sketch_merge, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.sketch_distinct(anyelement) IS 'the distinct values as a sketch, to be merged later and read by streamext.cardinality';
CREATE AGGREGATE streamext.merge(streamext.distinct_sketch) (
	SFUNC = streamext.distinct_sketch_merge, STYPE = streamext.distinct_sketch, SSPACE = 512,
	COMBINEFUNC = streamext.distinct_sketch_merge, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.merge(streamext.distinct_sketch) IS 'the sketch of all values together';

CREATE TYPE streamext.percentile_sketch;

CREATE FUNCTION streamext.percentile_sketch_in(cstring) RETURNS streamext.percentile_sketch
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_percentile_in';
CREATE FUNCTION streamext.percentile_sketch_out(streamext.percentile_sketch) RETURNS cstring
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_sketch_out';
CREATE FUNCTION streamext.percentile_sketch_recv(internal) RETURNS streamext.percentile_sketch
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_percentile_recv';
CREATE FUNCTION streamext.percentile_sketch_send(streamext.percentile_sketch) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_sketch_send';

CREATE TYPE streamext.percentile_sketch (
	INPUT = streamext.percentile_sketch_in, OUTPUT = streamext.percentile_sketch_out,
	RECEIVE = streamext.percentile_sketch_recv, SEND = streamext.percentile_sketch_send,
	INTERNALLENGTH = VARIABLE, ALIGNMENT = double, STORAGE = extended);
COMMENT ON TYPE streamext.percentile_sketch IS 'the distribution of a column, as DDSketch: percentiles within 1 % of the value';

CREATE FUNCTION streamext.percentile_sketch_add(streamext.percentile_sketch, float8) RETURNS streamext.percentile_sketch
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_percentile_add';
CREATE FUNCTION streamext.percentile_sketch_add(streamext.percentile_sketch, p float8, x float8) RETURNS streamext.percentile_sketch
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_percentile_add_p';
CREATE FUNCTION streamext.percentile_sketch_merge(streamext.percentile_sketch, streamext.percentile_sketch) RETURNS streamext.percentile_sketch
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_percentile_merge';
CREATE FUNCTION streamext.percentile_sketch_final(streamext.percentile_sketch) RETURNS float8
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_percentile_final';
CREATE FUNCTION streamext.percentile(sketch streamext.percentile_sketch, p float8) RETURNS float8
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_percentile_of';
COMMENT ON FUNCTION streamext.percentile(streamext.percentile_sketch, float8) IS
'the value at fraction p (0 to 1) as percentile_disc would return it, within 1 % of its size; NULL over nothing';

CREATE AGGREGATE streamext.approx_percentile(p float8, x float8) (
	SFUNC = streamext.percentile_sketch_add, STYPE = streamext.percentile_sketch, SSPACE = 1024,
	FINALFUNC = streamext.percentile_sketch_final, COMBINEFUNC = streamext.percentile_sketch_merge, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.approx_percentile(float8, float8) IS
'about percentile_disc(p) of x: within 1 % of the value; p is a fraction (0 to 1), one for all rows of a group';
CREATE AGGREGATE streamext.sketch_percentile(x float8) (
	SFUNC = streamext.percentile_sketch_add, STYPE = streamext.percentile_sketch, SSPACE = 1024,
	COMBINEFUNC = streamext.percentile_sketch_merge, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.sketch_percentile(float8) IS 'the distribution of x as a sketch, to be merged later and read by streamext.percentile';
CREATE AGGREGATE streamext.merge(streamext.percentile_sketch) (
	SFUNC = streamext.percentile_sketch_merge, STYPE = streamext.percentile_sketch, SSPACE = 1024,
	COMBINEFUNC = streamext.percentile_sketch_merge, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.merge(streamext.percentile_sketch) IS 'the sketch of all values together';

CREATE FUNCTION streamext.first_add(bytea, anyelement, timestamptz) RETURNS bytea
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_first_add';
CREATE FUNCTION streamext.last_add(bytea, anyelement, timestamptz) RETURNS bytea
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_last_add';
CREATE FUNCTION streamext.first_merge(bytea, bytea) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_first_merge';
CREATE FUNCTION streamext.last_merge(bytea, bytea) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_last_merge';
CREATE FUNCTION streamext.first_last_final(bytea, anyelement, timestamptz) RETURNS anyelement
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_first_last_final';
-- Their states are raw memory of the element's type: only the aggregates may call these.
REVOKE EXECUTE ON FUNCTION streamext.first_add(bytea, anyelement, timestamptz), streamext.last_add(bytea, anyelement, timestamptz),
	streamext.first_merge(bytea, bytea), streamext.last_merge(bytea, bytea),
	streamext.first_last_final(bytea, anyelement, timestamptz) FROM PUBLIC;

CREATE AGGREGATE streamext.first(x anyelement, ts timestamptz) (
	SFUNC = streamext.first_add, STYPE = bytea, FINALFUNC = streamext.first_last_final, FINALFUNC_EXTRA,
	COMBINEFUNC = streamext.first_merge, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.first(anyelement, timestamptz) IS 'the x of the row with the earliest ts; among equal ones the one that came first';
CREATE AGGREGATE streamext.last(x anyelement, ts timestamptz) (
	SFUNC = streamext.last_add, STYPE = bytea, FINALFUNC = streamext.first_last_final, FINALFUNC_EXTRA,
	COMBINEFUNC = streamext.last_merge, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.last(anyelement, timestamptz) IS 'the x of the row with the latest ts; among equal ones the one that came first';
