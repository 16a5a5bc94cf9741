/* streamext--1.0--1.1.sql: what is new since 1.0. CREATE EXTENSION runs streamext--1.0.sql and then this one. */
\echo Use "ALTER EXTENSION streamext UPDATE TO '1.1'" to load this file. \quit

SET LOCAL search_path TO pg_catalog, pg_temp;

/*
 * ---- what is internal out of sight of who completes names in streamext ----
 *
 * Not what dumps of users' objects name, or what is asked for by name from outside: the functions of views for shards and of exported views,
 * fdw_handler; and streamext.exported, whose rows are in dumps. The library finds functions and tables in either schema (src/base/own_schema.c).
 */

CREATE SCHEMA streamext_internal;
COMMENT ON SCHEMA streamext_internal IS 'what streamext is made of: nothing in it is for use by name';
-- For its functions, as in streamext: streamext.peek and streamext.compare call some with the caller's rights. Nobody has rights on its tables.
GRANT USAGE ON SCHEMA streamext_internal TO PUBLIC;

-- First the one by whose lock statements on the tables of 1.0 wait for the others (src/base/own_table.c).
ALTER TABLE streamext.checkpoint_log SET SCHEMA streamext_internal;
ALTER TABLE streamext.dead_letter SET SCHEMA streamext_internal;
ALTER TABLE streamext.history SET SCHEMA streamext_internal;
ALTER TABLE streamext.into_position SET SCHEMA streamext_internal;
ALTER TABLE streamext.into_window SET SCHEMA streamext_internal;
ALTER TABLE streamext.late_row SET SCHEMA streamext_internal;
ALTER TABLE streamext.paused SET SCHEMA streamext_internal;
ALTER TABLE streamext.retry_request SET SCHEMA streamext_internal;
ALTER TABLE streamext.round SET SCHEMA streamext_internal;
ALTER TABLE streamext.seek_request SET SCHEMA streamext_internal;
ALTER TABLE streamext.stream_event SET SCHEMA streamext_internal;

ALTER FUNCTION streamext.distinct_sketch_add(streamext.distinct_sketch, anyelement) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.distinct_sketch_in(cstring) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.distinct_sketch_merge(streamext.distinct_sketch, streamext.distinct_sketch) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.distinct_sketch_out(streamext.distinct_sketch) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.distinct_sketch_recv(internal) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.distinct_sketch_send(streamext.distinct_sketch) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.first_add(bytea, anyelement, timestamp with time zone) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.first_last_final(bytea, anyelement, timestamp with time zone) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.first_merge(bytea, bytea) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.get_continuous_views() SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.get_stream_partitions() SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.get_streams() SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.get_workers() SET SCHEMA streamext_internal;
/* what takes locks at a glance does so in a subtransaction, and there is none in a plan with parallel workers */
ALTER FUNCTION streamext_internal.get_stream_partitions() PARALLEL UNSAFE;
ALTER FUNCTION streamext_internal.get_streams() PARALLEL UNSAFE;
ALTER FUNCTION streamext_internal.get_workers() PARALLEL UNSAFE;
ALTER FUNCTION streamext.view_positions(regclass) PARALLEL UNSAFE;
ALTER FUNCTION streamext.kafka_validator(text[], oid) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.last_add(bytea, anyelement, timestamp with time zone) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.last_merge(bytea, bytea) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.local_validator(text[], oid) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.mqtt_validator(text[], oid) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.percentile_sketch_add(streamext.percentile_sketch, double precision) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.percentile_sketch_add(streamext.percentile_sketch, double precision, double precision) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.percentile_sketch_final(streamext.percentile_sketch) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.percentile_sketch_in(cstring) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.percentile_sketch_merge(streamext.percentile_sketch, streamext.percentile_sketch) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.percentile_sketch_out(streamext.percentile_sketch) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.percentile_sketch_recv(internal) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.percentile_sketch_send(streamext.percentile_sketch) SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.require_preload() SET SCHEMA streamext_internal;
ALTER FUNCTION streamext.view_rows(oid) SET SCHEMA streamext_internal;

/* ---- dead letters: whose eyes a reason is for; the record's key and headers ---- */

CREATE FUNCTION streamext_internal.may_see_reasons(view oid) RETURNS boolean
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_may_see_reasons';
COMMENT ON FUNCTION streamext_internal.may_see_reasons(oid) IS
'internal: whether the user may see what errors of a continuous view say: he has the rights of its owner, or may read all that the view reads';

CREATE FUNCTION streamext_internal.letter_key(record bytea) RETURNS bytea
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_letter_key';
COMMENT ON FUNCTION streamext_internal.letter_key(bytea) IS 'internal: a dead letter''s key';

CREATE FUNCTION streamext_internal.letter_headers(record bytea) RETURNS json
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_letter_headers';
COMMENT ON FUNCTION streamext_internal.letter_headers(bytea) IS 'internal: a dead letter''s headers';

CREATE FUNCTION streamext.payload_text(payload bytea) RETURNS text
LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_payload_text';
COMMENT ON FUNCTION streamext.payload_text(bytea) IS 'a record''s bytes as text; what is no UTF-8, and NULs, as \xNN';

DROP VIEW streamext.dead_letters;
CREATE VIEW streamext.dead_letters WITH (security_barrier) AS
SELECT d.id, d.stream::pg_catalog.regclass AS stream, (CASE WHEN d.view OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN d.view END)::pg_catalog.regclass AS view,
       COALESCE(CASE WHEN v.own THEN pg_catalog.regexp_replace(d.topic, ' of [0-9.]+$', ' of ') OPERATOR(pg_catalog.||)
           (pg_catalog.substring(d.topic, ' of ([0-9]+)[0-9.]*$')::pg_catalog.oid::pg_catalog.regclass)::pg_catalog.text END, d.topic) AS topic, d.partition, d.position, d.received_at, d.sqlstate,
       CASE WHEN CASE WHEN d.view OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN m.may ELSE streamext_internal.may_see_reasons(d.view) END THEN d.reason
            ELSE 'the reason is for who may read all that the view reads' END AS reason,
       CASE WHEN m.may THEN d.payload END AS payload,
       CASE WHEN m.may THEN streamext_internal.letter_key(d.record) END AS key, CASE WHEN m.may THEN streamext_internal.letter_headers(d.record) END AS headers,
       CASE WHEN m.may THEN streamext.payload_text(d.payload) END AS payload_text
FROM streamext_internal.dead_letter AS d
-- A view over another one rejects whole rows of that one, and one with UNION ALL records of its parts, of which its owner and its readers may have no
-- column; and it may read another by now. A part's letters are its stream's too.
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) d.stream AND c.relkind OPERATOR(pg_catalog.=) 'v') AS own) AS v
CROSS JOIN LATERAL (SELECT pg_catalog.pg_has_role('pg_read_all_data', 'USAGE') OR NOT v.own AS may) AS m
WHERE pg_catalog.has_table_privilege(d.stream, 'SELECT');

GRANT SELECT ON streamext.dead_letters TO PUBLIC;

-- The same of late rows.
DROP VIEW streamext.late_rows;
CREATE VIEW streamext.late_rows WITH (security_barrier) AS
SELECT l.id, l.stream::pg_catalog.regclass AS stream, l.view::pg_catalog.regclass AS view,
       COALESCE(CASE WHEN v.own THEN pg_catalog.regexp_replace(l.topic, ' of [0-9.]+$', ' of ') OPERATOR(pg_catalog.||)
           (pg_catalog.substring(l.topic, ' of ([0-9]+)[0-9.]*$')::pg_catalog.oid::pg_catalog.regclass)::pg_catalog.text END, l.topic) AS topic, l.partition, l.position, l.event_time, l.received_at,
       CASE WHEN pg_catalog.pg_has_role('pg_read_all_data', 'USAGE') OR NOT v.own THEN l.payload END AS payload
FROM streamext_internal.late_row AS l
CROSS JOIN LATERAL (
    SELECT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) l.stream AND c.relkind OPERATOR(pg_catalog.=) 'v') AS own) AS v
WHERE pg_catalog.has_table_privilege(l.stream, 'SELECT');
GRANT SELECT ON streamext.late_rows TO PUBLIC;
COMMENT ON VIEW streamext.late_rows IS 'late rows of the streams that the user may read, for views with streamext.keep_late';
COMMENT ON COLUMN streamext.late_rows.view IS 'the continuous view that has not counted the row';
COMMENT ON COLUMN streamext.late_rows.position IS 'Kafka offset; position in the journal for other connectors';
COMMENT ON COLUMN streamext.late_rows.received_at IS 'when it was found late';
COMMENT ON COLUMN streamext.dead_letters.view IS 'the continuous view that could not count the record; NULL: no view has it';
COMMENT ON COLUMN streamext.dead_letters.position IS 'Kafka offset; position in the journal for other connectors';
COMMENT ON COLUMN streamext.dead_letters.payload IS 'the record as received; at most 1 MB of it; of a view over a view or with UNION ALL it is shown to members of pg_read_all_data';
COMMENT ON COLUMN streamext.late_rows.payload IS 'the record as received; at most 1 MB of it; of a view over a view or with UNION ALL it is shown to members of pg_read_all_data';
COMMENT ON VIEW streamext.dead_letters IS 'rejected records of the streams that the user may read';
COMMENT ON COLUMN streamext.dead_letters.received_at IS 'when the record was rejected, the last time';
COMMENT ON COLUMN streamext.dead_letters.reason IS 'at most 1 kB; of a continuous view it is shown to who may read all that the view reads';
COMMENT ON COLUMN streamext.dead_letters.key IS 'the record''s key, if it has one';
COMMENT ON COLUMN streamext.dead_letters.headers IS 'the record''s headers, if it has any';
COMMENT ON COLUMN streamext.dead_letters.payload_text IS 'payload as text; what is no UTF-8 as \xNN';

CREATE FUNCTION streamext_internal.get_tombstones(stream regclass) RETURNS bigint
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_get_tombstones';
COMMENT ON FUNCTION streamext_internal.get_tombstones(regclass) IS 'internal: records without a payload that a stream has passed over';

CREATE FUNCTION streamext_internal.get_state_since(stream regclass) RETURNS timestamptz
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_get_state_since';
COMMENT ON FUNCTION streamext_internal.get_state_since(regclass) IS 'internal: since when a stream has been in its state';

DROP VIEW streamext.streams;
CREATE VIEW streamext.streams AS
SELECT s.*, s.last_error_at OPERATOR(pg_catalog.<) s.state_since AND s.state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'catching_up']) AS last_error_past
FROM (
SELECT s.stream, s.connector, s.format, s.state, s.workers, s.rows_in, s.bytes_in, s.rate, s.watermark, s.lag_rows, s.lag_seconds,
       s.rejected, s.last_error, s.last_error_at, streamext_internal.get_tombstones(s.stream) AS tombstones,
       (SELECT o.option_value FROM pg_catalog.pg_foreign_table AS t, pg_catalog.pg_options_to_table(t.ftoptions) AS o
        WHERE t.ftrelid OPERATOR(pg_catalog.=) s.stream::pg_catalog.oid AND o.option_name OPERATOR(pg_catalog.=) 'partitions') AS partitions,
       COALESCE((SELECT o.option_value FROM pg_catalog.pg_foreign_table AS t, pg_catalog.pg_options_to_table(t.ftoptions) AS o
                 WHERE t.ftrelid OPERATOR(pg_catalog.=) s.stream::pg_catalog.oid AND o.option_name OPERATOR(pg_catalog.=) 'datestyle'), 'ISO, MDY') AS datestyle,
       streamext_internal.get_state_since(s.stream) AS state_since
FROM streamext_internal.get_streams() AS s) AS s;
COMMENT ON COLUMN streamext.streams.state_since IS 'when the stream came into its state; NULL: not known';
COMMENT ON COLUMN streamext.streams.last_error_past IS 'whether last_error is over: it is from before the stream was running';
GRANT SELECT ON streamext.streams TO PUBLIC;
COMMENT ON VIEW streamext.streams IS 'a row for each stream; counts are since reading began; checkpoints carry them over restarts';
COMMENT ON COLUMN streamext.streams.watermark IS 'no record before this event time is expected any more; the lowest of all shards';
COMMENT ON COLUMN streamext.streams.lag_rows IS 'records that the source holds beyond what was read; NULL: not known';
COMMENT ON COLUMN streamext.streams.lag_seconds IS 'seconds from the newest event time (or else arrival) to now; grows while the source is silent';
COMMENT ON COLUMN streamext.streams.state IS
'running, catching_up, paused, stalled (source unreachable), diverged (not the source read before), full (memory limit), waiting (no worker), failed';
COMMENT ON COLUMN streamext.streams.workers IS 'shards that have a slot';
COMMENT ON COLUMN streamext.streams.rows_in IS 'records delivered by the source';
COMMENT ON COLUMN streamext.streams.bytes_in IS 'bytes of their payloads';
COMMENT ON COLUMN streamext.streams.rate IS 'records a second, over about the last 10 s';
COMMENT ON COLUMN streamext.streams.rejected IS 'records rejected for all views: malformed, without event time, NULL in a NOT NULL column';
COMMENT ON COLUMN streamext.streams.tombstones IS 'records without a payload that were passed over (option tombstones); rows_in holds them';
COMMENT ON COLUMN streamext.streams.partitions IS 'the option of kafka: i/n, the partitions p with p mod n = i; NULL: all';

COMMENT ON COLUMN streamext.streams.datestyle IS 'DateStyle under which dates in payloads are read: the session''s at CREATE FOREIGN TABLE, or the option';

/* ---- feeds ---- */

CREATE FUNCTION streamext_internal.feed_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'streamext_feed_validator';
COMMENT ON FUNCTION streamext_internal.feed_validator(text[], oid) IS 'internal: options of feed';

CREATE FOREIGN DATA WRAPPER feed HANDLER streamext.fdw_handler VALIDATOR streamext_internal.feed_validator;
COMMENT ON FOREIGN DATA WRAPPER feed IS 'streams of endless HTTP answers and websockets';

COMMENT ON COLUMN streamext.stream_events.kind IS
'gap (records were gone before they were read), diverged (not the source read before), stalled (source unreachable), recovered, seek (streamext.seek was done), retry (streamext.retry_dead_letters was done), jump (a record has moved the watermark by more than a minute, and others are late for it), live (a feed begins without a token: records before may be missing), refused (a feed''s server tells of an error)';

/* ---- what is wrong with a stream ---- */

CREATE FUNCTION streamext_internal.get_stream_columns(
	OUT stream regclass, OUT "column" text, OUT present bigint, OUT missing bigint, OUT "null" bigint, OUT rejected bigint, OUT hint text)
RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_get_stream_columns';
COMMENT ON FUNCTION streamext_internal.get_stream_columns() IS 'internal: what streamext.stream_columns shows';

CREATE VIEW streamext.stream_columns AS
SELECT c.stream, c."column", c.present, c.missing, c."null", c.rejected, c.hint FROM streamext_internal.get_stream_columns() AS c;
GRANT SELECT ON streamext.stream_columns TO PUBLIC;
COMMENT ON VIEW streamext.stream_columns IS
'what the columns of streams have found in payloads since the worker has started or the stream was changed; each record read is in one of the four counts';
COMMENT ON COLUMN streamext.stream_columns.present IS 'records with a value; NULL, as the others: not from a payload';
COMMENT ON COLUMN streamext.stream_columns.missing IS 'records without the field';
COMMENT ON COLUMN streamext.stream_columns."null" IS 'records whose field is null';
COMMENT ON COLUMN streamext.stream_columns.rejected IS 'records with a value that the column does not take; they are dead letters, or the column is NULL (option on_bad_value)';
COMMENT ON COLUMN streamext.stream_columns.hint IS 'of a column that has never found a value: what the newest record has instead';

CREATE FUNCTION streamext_internal.get_newest(
	stream regclass, n integer, OUT topic text, OUT partition integer, OUT "position" bigint, OUT "timestamp" timestamptz, OUT key bytea,
	OUT headers json, OUT payload bytea) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_get_newest';
COMMENT ON FUNCTION streamext_internal.get_newest(regclass, integer) IS 'internal: the newest records that the buffer of a stream holds';

CREATE FUNCTION streamext.peek(
	stream regclass, n integer DEFAULT 10, OUT topic text, OUT partition integer, OUT "position" bigint, OUT "timestamp" timestamptz,
	OUT key bytea, OUT headers json, OUT payload bytea, OUT payload_text text) RETURNS SETOF record
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT r.topic, r.partition, r."position", r."timestamp", r.key, r.headers, r.payload, streamext.payload_text(r.payload)
	FROM (SELECT g.topic, g.partition, g."position", g."timestamp", g.key, g.headers, g.payload
		  FROM streamext_internal.get_newest(peek.stream, peek.n) AS g
		  UNION ALL
		  SELECT d.topic, d.partition, d."position", d.received_at, d.key, d.headers, d.payload
		  FROM streamext.dead_letters AS d
		  WHERE d.stream OPERATOR(pg_catalog.=) peek.stream AND d.view IS NULL) AS r
	ORDER BY r."timestamp" DESC, r."position" DESC LIMIT peek.n
$$;
COMMENT ON FUNCTION streamext.peek(regclass, integer) IS
'the newest records that a stream has read as they came, newest first, also those that it has rejected (timestamp: then when it did)';

CREATE FUNCTION streamext_internal.get_sample(
	server text, source_topic text, n integer, wait interval, OUT topic text, OUT partition integer, OUT "position" bigint, OUT "timestamp" timestamptz,
	OUT key bytea, OUT headers json, OUT payload bytea) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_get_sample';
COMMENT ON FUNCTION streamext_internal.get_sample(text, text, integer, interval) IS 'internal: the newest records that a server''s source has';

CREATE FUNCTION streamext.peek(
	server text, source_topic text, n integer DEFAULT 10, wait interval DEFAULT '5 s', OUT topic text, OUT partition integer, OUT "position" bigint,
	OUT "timestamp" timestamptz, OUT key bytea, OUT headers json, OUT payload bytea, OUT payload_text text) RETURNS SETOF record
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
	SELECT g.topic, g.partition, g."position", g."timestamp", g.key, g.headers, g.payload, streamext.payload_text(g.payload)
	FROM streamext_internal.get_sample(peek.server, peek.source_topic, peek.n, peek.wait) AS g
$$;
COMMENT ON FUNCTION streamext.peek(text, text, integer, interval) IS
'the newest records of a server''s topic as they are, newest first, before there is a stream; of an MQTT filter: retained ones and what comes meanwhile';

CREATE FUNCTION streamext.check(stream regclass, OUT what text, OUT ok boolean, OUT detail text, OUT hint text) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_check';
COMMENT ON FUNCTION streamext.check(regclass) IS 'what a stream needs to work, what it has not got, and what to do then';

CREATE FUNCTION streamext.flush(stream regclass, timeout interval) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_flush';
COMMENT ON FUNCTION streamext.flush(regclass, interval) IS
'as streamext.flush(regclass); after the timeout (NULL: never) it raises 57014 and says what it has waited for';

/* ---- settings kept with a view ---- */

CREATE FUNCTION streamext.view_settings(view oid) RETURNS text[]
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_view_settings';

COMMENT ON FUNCTION streamext.view_settings(oid) IS 'column settings of streamext.continuous_views';

CREATE FUNCTION streamext.view_streams(view oid) RETURNS regclass[]
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_view_streams';

COMMENT ON FUNCTION streamext.view_streams(oid) IS 'column streams of streamext.continuous_views';

DROP VIEW streamext.continuous_views;
CREATE FUNCTION streamext_internal.get_view_definition(view oid) RETURNS text
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_get_view_definition';
COMMENT ON FUNCTION streamext_internal.get_view_definition(oid) IS 'internal: as pg_get_viewdef; NULL where another transaction holds the view';

CREATE VIEW streamext.continuous_views AS
SELECT v.view, v.stream, streamext_internal.get_view_definition(v.view::pg_catalog.oid) AS definition, v.window_kind, v.window_size, v.window_slide,
       v.sliding, v.state, v.groups, v.open_windows, v.state_bytes, v.accepted, v.late, v.rejected, v.timezone, v.datestyle,
       v.intervalstyle, v.options, v.last_error, v.last_checkpoint, v.catchup_rows, v.catchup_total, v.catchup_until,
       v.history_panes, v.history_bytes, v.sealed_until, streamext.view_settings(v.view) AS settings,
       COALESCE(streamext.view_streams(v.view), ARRAY[v.stream]) AS streams
FROM streamext_internal.get_continuous_views() AS v;
GRANT SELECT ON streamext.continuous_views TO PUBLIC;
COMMENT ON VIEW streamext.continuous_views IS 'a row for each continuous view; counts are since its state was begun';
COMMENT ON COLUMN streamext.continuous_views.window_kind IS 'tumble (also date_bin), hop, trunc (date_trunc), session, none';
COMMENT ON COLUMN streamext.continuous_views.window_size IS 'size, or gap of a session, as an interval; unit of date_trunc';
COMMENT ON COLUMN streamext.continuous_views.sliding IS 'length of the window that slides over now, as an interval';
COMMENT ON COLUMN streamext.continuous_views.state IS 'as in streams; failed and full may be of the view alone';
COMMENT ON COLUMN streamext.continuous_views.groups IS 'groups kept, counted once in each pane';
COMMENT ON COLUMN streamext.continuous_views.open_windows IS 'panes kept in memory: the windows of a tumbling view, slices of windows else';
COMMENT ON COLUMN streamext.continuous_views.state_bytes IS 'shared memory taken';
COMMENT ON COLUMN streamext.continuous_views.accepted IS 'records counted; accepted + late + rejected = delivered';
COMMENT ON COLUMN streamext.continuous_views.late IS 'records that found none of their windows open';
COMMENT ON COLUMN streamext.continuous_views.rejected IS 'records left out because an expression of the view raised an error, or rejected for the stream';
COMMENT ON COLUMN streamext.continuous_views.last_checkpoint IS 'the moment of the last checkpoint that holds the view; NULL: none yet';
COMMENT ON COLUMN streamext.continuous_views.timezone IS 'TimeZone under which the view''s expressions run';
COMMENT ON COLUMN streamext.continuous_views.catchup_rows IS 'while catching up: records read since it began; else NULL';
COMMENT ON COLUMN streamext.continuous_views.catchup_total IS 'while catching up: records to be read in all, as far as known; grows with the stream';
COMMENT ON COLUMN streamext.continuous_views.catchup_until IS 'when that will be done at the present pace';
COMMENT ON COLUMN streamext.continuous_views.history_panes IS 'sealed panes moved from memory to the table streamext_internal.history';
COMMENT ON COLUMN streamext.continuous_views.history_bytes IS 'their size before compression';
COMMENT ON COLUMN streamext.continuous_views.sealed_until IS 'end of the last pane in history; NULL: none is';

COMMENT ON COLUMN streamext.continuous_views.settings IS
'other settings under which the view''s expressions run, where they are not as usual: name=value';

COMMENT ON COLUMN streamext.continuous_views.streams IS 'what it reads: of UNION ALL the streams of all parts, else the column stream alone';

/* ---- metrics ---- */

CREATE FUNCTION streamext_internal.get_times() RETURNS TABLE (stream regclass, what text, le text, below bigint, seconds double precision)
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_get_times';
COMMENT ON FUNCTION streamext_internal.get_times() IS 'internal: the histograms that streamext.metrics shows: batches up to each bound, and the sum of all';

-- The one table of metrics: docs/reference.md and streamext.metrics_text() follow it.
CREATE VIEW streamext.metrics AS
SELECT m.name, m.kind, m.unit, m.labels, m.value, m.help
FROM (
    SELECT x.name, x.kind, x.unit, pg_catalog.jsonb_build_object('database', pg_catalog.current_database(), 'stream', pg_catalog.format('%s.%s', n.nspname, c.relname)) AS labels,
           x.value, x.help
    FROM streamext.streams AS s
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) s.stream::pg_catalog.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    CROSS JOIN LATERAL (VALUES
        ('streamext_stream_up', 'gauge', '', (s.state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'catching_up']))::pg_catalog.int4::pg_catalog.float8, 'Whether the stream reads its source: it is running or catching_up.'),
        ('streamext_stream_records_total', 'counter', 'records', s.rows_in::pg_catalog.float8, 'Records delivered by the source.'),
        ('streamext_stream_bytes_total', 'counter', 'bytes', s.bytes_in::pg_catalog.float8, 'Bytes of their payloads.'),
        ('streamext_stream_rejected_total', 'counter', 'records', s.rejected::pg_catalog.float8, 'Records rejected for all views.'),
        ('streamext_stream_tombstones_total', 'counter', 'records', s.tombstones::pg_catalog.float8, 'Records without a payload that were passed over.'),
        ('streamext_stream_lag_records', 'gauge', 'records', s.lag_rows::pg_catalog.float8, 'Records that the source holds beyond what was read.'),
        ('streamext_stream_event_lag_seconds', 'gauge', 'seconds', s.lag_seconds, 'From the newest event time to now; grows while the source is silent.'),
        ('streamext_stream_watermark_timestamp_seconds', 'gauge', 'seconds', pg_catalog.date_part('epoch', s.watermark), 'The watermark, as seconds since 1970.'),
        ('streamext_stream_workers', 'gauge', '', s.workers::pg_catalog.float8, 'Shards of the stream.')
    ) AS x(name, kind, unit, value, help)
    UNION ALL
    SELECT 'streamext_stream_state', 'gauge', '', pg_catalog.jsonb_build_object('database', pg_catalog.current_database(), 'stream', pg_catalog.format('%s.%s', n.nspname, c.relname), 'state', s.state),
           1::pg_catalog.float8, 'The state that the stream is in, as a label.'
    FROM streamext.streams AS s
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) s.stream::pg_catalog.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    UNION ALL
    SELECT x.name, x.kind, x.unit, pg_catalog.jsonb_build_object('database', pg_catalog.current_database(), 'stream', pg_catalog.format('%s.%s', n.nspname, c.relname), 'topic', p.topic, 'partition', p.partition::text),
           x.value, x.help
    FROM streamext.stream_partitions AS p
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) p.stream::pg_catalog.oid AND c.relkind OPERATOR(pg_catalog.=) 'f'
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    CROSS JOIN LATERAL (VALUES
        ('streamext_partition_records_total', 'counter', 'records', p.rows_in::pg_catalog.float8, 'Records delivered from the partition.'),
        ('streamext_partition_missed_total', 'counter', 'records', p.missed::pg_catalog.float8, 'Records that the source had lost before they were read.'),
        ('streamext_partition_lag_records', 'gauge', 'records', p.lag_rows::pg_catalog.float8, 'Records of the partition beyond what was read.'),
        ('streamext_partition_journal_bytes', 'gauge', 'bytes', p.journal_bytes::pg_catalog.float8, 'Size of the journal on disk.')
    ) AS x(name, kind, unit, value, help)
    UNION ALL
    SELECT x.name, x.kind, x.unit, pg_catalog.jsonb_build_object('database', pg_catalog.current_database(), 'stream', pg_catalog.format('%s.%s', n.nspname, c.relname), 'shard', w.shard::text),
           x.value, x.help
    FROM streamext.workers AS w
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) w.stream::pg_catalog.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    CROSS JOIN LATERAL (VALUES
        ('streamext_worker_up', 'gauge', '', (w.pid IS NOT NULL)::pg_catalog.int4::pg_catalog.float8, 'Whether the shard has a worker.'),
        ('streamext_worker_restarts_total', 'counter', '', w.restarts::pg_catalog.float8, 'Starts of the worker after it had ended by an error or a crash.'),
        ('streamext_checkpoint_duration_seconds', 'gauge', 'seconds', w.checkpoint_ms OPERATOR(pg_catalog./) 1000::pg_catalog.float8, 'The time of the worker for the last checkpoint.'),
        ('streamext_checkpoint_bytes', 'gauge', 'bytes', w.checkpoint_bytes::pg_catalog.float8, 'Written for the last checkpoint.'),
        ('streamext_checkpoint_timestamp_seconds', 'gauge', 'seconds', pg_catalog.date_part('epoch', w.checkpoint_at), 'When the last checkpoint was cut, as seconds since 1970.')
    ) AS x(name, kind, unit, value, help)
    WHERE w.task OPERATOR(pg_catalog.=) 'stream'
    UNION ALL
    SELECT pg_catalog.concat(h.name, x.part), 'histogram', 'seconds',
           pg_catalog.jsonb_build_object('database', pg_catalog.current_database(), 'stream', pg_catalog.format('%s.%s', n.nspname, c.relname)) OPERATOR(pg_catalog.||) x.bound,
           x.value, h.help
    FROM streamext_internal.get_times() AS t
    JOIN (VALUES
        ('batch', 'streamext_batch_seconds', 'The time of the worker for a batch, until its commit.'),
        ('decode', 'streamext_batch_decode_seconds', 'Of that, the time to make rows of records.'),
        ('fold', 'streamext_batch_fold_seconds', 'Of that, the time to count the rows in all views.'),
        ('event_lag', 'streamext_batch_event_lag_seconds', 'From the newest event time of the stream to the commit of each batch.')
    ) AS h(what, name, help) ON h.what OPERATOR(pg_catalog.=) t.what
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) t.stream::pg_catalog.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    CROSS JOIN LATERAL (VALUES
        ('_bucket', pg_catalog.jsonb_build_object('le', t.le), t.below::pg_catalog.float8),
        ('_count', '{}', t.below::pg_catalog.float8),
        ('_sum', '{}', t.seconds)
    ) AS x(part, bound, value)
    WHERE x.part OPERATOR(pg_catalog.=) '_bucket' OR t.le OPERATOR(pg_catalog.=) '+Inf'
    UNION ALL
    SELECT x.name, x.kind, x.unit, pg_catalog.jsonb_build_object('database', pg_catalog.current_database(), 'view', pg_catalog.format('%s.%s', n.nspname, c.relname)),
           x.value, x.help
    FROM streamext.continuous_views AS v
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) v.view::pg_catalog.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    CROSS JOIN LATERAL (VALUES
        ('streamext_view_up', 'gauge', '', (v.state OPERATOR(pg_catalog.=) ANY (ARRAY['running', 'catching_up']))::pg_catalog.int4::pg_catalog.float8, 'Whether the view counts what comes: it is running or catching_up.'),
        ('streamext_view_accepted_total', 'counter', 'records', v.accepted::pg_catalog.float8, 'Records counted.'),
        ('streamext_view_late_total', 'counter', 'records', v.late::pg_catalog.float8, 'Records that came too late for a window.'),
        ('streamext_view_rejected_total', 'counter', 'records', v.rejected::pg_catalog.float8, 'Records rejected for the stream or by an expression of the view.'),
        ('streamext_view_groups', 'gauge', '', v.groups::pg_catalog.float8, 'Groups kept, counted once in each pane.'),
        ('streamext_view_windows', 'gauge', '', v.open_windows::pg_catalog.float8, 'Panes kept in memory.'),
        ('streamext_view_state_bytes', 'gauge', 'bytes', v.state_bytes::pg_catalog.float8, 'Shared memory taken.'),
        ('streamext_view_history_bytes', 'gauge', 'bytes', v.history_bytes::pg_catalog.float8, 'Sealed panes in history, before compression.'),
        ('streamext_view_checkpoint_timestamp_seconds', 'gauge', 'seconds', pg_catalog.date_part('epoch', v.last_checkpoint), 'When the last checkpoint that holds the view was cut, as seconds since 1970.')
    ) AS x(name, kind, unit, value, help)
    UNION ALL
    SELECT 'streamext_dead_letters', 'gauge', 'records', pg_catalog.jsonb_build_object('database', pg_catalog.current_database(), 'stream', pg_catalog.format('%s.%s', n.nspname, c.relname), 'class', d.class),
           d.n::pg_catalog.float8, 'Dead letters that are kept, by the class of their SQLSTATE.'
    FROM (SELECT l.stream, pg_catalog.substr(l.sqlstate, 1, 2) AS class, pg_catalog.count(*) AS n
          FROM streamext.dead_letters AS l GROUP BY l.stream, pg_catalog.substr(l.sqlstate, 1, 2)) AS d
    JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) d.stream::pg_catalog.oid
    JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    UNION ALL
    SELECT 'streamext_memory_limit_bytes', 'gauge', 'bytes', pg_catalog.jsonb_build_object('database', pg_catalog.current_database()),
           pg_catalog.pg_size_bytes(pg_catalog.current_setting('streamext.memory_limit'))::pg_catalog.float8, 'streamext.memory_limit, which all databases of the server share.'
) AS m(name, kind, unit, labels, value, help)
WHERE m.value IS NOT NULL;
GRANT SELECT ON streamext.metrics TO PUBLIC;
COMMENT ON VIEW streamext.metrics IS 'what the other catalogue views show, of the streams and views that the user may see, as named numbers for monitoring';
COMMENT ON COLUMN streamext.metrics.name IS 'as Prometheus writes it';
COMMENT ON COLUMN streamext.metrics.kind IS 'counter, which only grows but for restarts, gauge, or histogram: batches up to the label le, their number, and the sum of all';
COMMENT ON COLUMN streamext.metrics.unit IS 'records, bytes, seconds, or empty';
COMMENT ON COLUMN streamext.metrics.labels IS 'which database, stream, view, partition it is of; texts';
COMMENT ON COLUMN streamext.metrics.value IS 'now';
COMMENT ON COLUMN streamext.metrics.help IS 'what it says, a sentence';

CREATE FUNCTION streamext.metrics_text(openmetrics boolean DEFAULT false) RETURNS text
LANGUAGE sql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_catalog.concat(pg_catalog.string_agg(f.block, '' ORDER BY f.name COLLATE "C"), CASE WHEN metrics_text.openmetrics THEN E'# EOF\n' END)
    FROM (
        SELECT b.family AS name, pg_catalog.concat(
                   pg_catalog.format(E'# HELP %s %s\n# TYPE %s %s\n', b.family, m.help, b.family, m.kind),
                   pg_catalog.string_agg(pg_catalog.format(E'%s{%s} %s\n', m.name, pg_catalog.concat_ws(',', l.labels, l.bound), m.value), ''
                                         ORDER BY l.labels COLLATE "C", m.name COLLATE "C", (m.labels OPERATOR(pg_catalog.->>) 'le')::pg_catalog.float8)) AS block
        FROM streamext.metrics AS m
        CROSS JOIN LATERAL (SELECT CASE WHEN m.kind OPERATOR(pg_catalog.=) 'histogram' THEN pg_catalog.regexp_replace(m.name, '_(bucket|count|sum)$', '')
                                        WHEN metrics_text.openmetrics THEN pg_catalog.regexp_replace(m.name, '_total$', '') ELSE m.name END AS family) AS b
        CROSS JOIN LATERAL (
            SELECT pg_catalog.string_agg(e.label, ',' ORDER BY e.key COLLATE "C") FILTER (WHERE e.key OPERATOR(pg_catalog.<>) 'le') AS labels,
                   pg_catalog.min(e.label) FILTER (WHERE e.key OPERATOR(pg_catalog.=) 'le') AS bound
            FROM (SELECT j.key, pg_catalog.format('%s="%s"', j.key, pg_catalog.replace(pg_catalog.replace(pg_catalog.replace(j.value, E'\\', E'\\\\'), '"', E'\\"'), E'\n', E'\\n')) AS label
                  FROM pg_catalog.jsonb_each_text(m.labels) AS j) AS e) AS l
        GROUP BY b.family, m.kind, m.help) AS f
$$;
COMMENT ON FUNCTION streamext.metrics_text(boolean) IS 'streamext.metrics in the text format of Prometheus (0.0.4), or in that of OpenMetrics';

/* ---- changes of views ---- */

CREATE FUNCTION streamext.changes(view regclass, after text DEFAULT NULL, wait interval DEFAULT '0')
RETURNS TABLE (op text, token text, at timestamptz, "row" jsonb)
LANGUAGE c VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_changes';
COMMENT ON FUNCTION streamext.changes(regclass, text, interval) IS
'rows of a continuous view that have changed since a token: op is upsert, delete or reset (begin anew)';

/* ---- servers with a gateway ---- */

CREATE FUNCTION streamext_internal.http_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'streamext_http_validator';
REVOKE ALL ON FUNCTION streamext_internal.http_validator(text[], oid) FROM PUBLIC;
COMMENT ON FUNCTION streamext_internal.http_validator(text[], oid) IS 'internal: checks the options of HTTP servers, user mappings and streams';

CREATE FOREIGN DATA WRAPPER http HANDLER streamext.fdw_handler VALIDATOR streamext_internal.http_validator;
COMMENT ON FOREIGN DATA WRAPPER http IS 'streams of records that are sent by HTTP';

CREATE FUNCTION streamext_internal.flume_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'streamext_flume_validator';
REVOKE ALL ON FUNCTION streamext_internal.flume_validator(text[], oid) FROM PUBLIC;
COMMENT ON FUNCTION streamext_internal.flume_validator(text[], oid) IS 'internal: checks the options of Flume servers and streams';

CREATE FOREIGN DATA WRAPPER flume HANDLER streamext.fdw_handler VALIDATOR streamext_internal.flume_validator;
COMMENT ON FOREIGN DATA WRAPPER flume IS 'streams of events that Apache Flume sends';

CREATE FUNCTION streamext_internal.get_gateways(
	OUT server oid, OUT listen text, OUT state text, OUT connections bigint, OUT requests bigint, OUT last_error text) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_get_gateways';
REVOKE ALL ON FUNCTION streamext_internal.get_gateways() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION streamext_internal.get_gateways() TO PUBLIC;
COMMENT ON FUNCTION streamext_internal.get_gateways() IS 'internal: what streamext.gateways shows';

CREATE VIEW streamext.gateways AS
SELECT s.srvname AS server, COALESCE(g.listen, o.option_value) AS listen, g.state, g.connections, g.requests, g.last_error
FROM streamext_internal.get_gateways() AS g
JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) g.server
LEFT JOIN LATERAL pg_catalog.pg_options_to_table(s.srvoptions) AS o ON o.option_name OPERATOR(pg_catalog.=) 'listen'
WHERE pg_catalog.has_server_privilege(s.oid, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
GRANT SELECT ON streamext.gateways TO PUBLIC;
COMMENT ON VIEW streamext.gateways IS 'a row for each server of this database that has a gateway, of those that one may use';
COMMENT ON COLUMN streamext.gateways.listen IS 'the address';
COMMENT ON COLUMN streamext.gateways.state IS 'starting, listening, address_in_use, certificate_unreadable, waiting (no worker slot) or failed; all but listening are tried again';
COMMENT ON COLUMN streamext.gateways.connections IS 'open now';
COMMENT ON COLUMN streamext.gateways.requests IS 'taken in, good or not, since the server''s start';
COMMENT ON COLUMN streamext.gateways.last_error IS 'what went wrong last; it may be over';
/* ---- alerts ---- */

-- None of these is dumped (no pg_extension_config_dump): they are of this database's views, known by OID; the views themselves are.
CREATE TABLE streamext_internal.alert_state (
	view oid NOT NULL,
	key jsonb NOT NULL,
	state text,
	since timestamptz,
	present boolean NOT NULL,
	seen_at timestamptz,
	last_event timestamptz,
	"row" jsonb,
	PRIMARY KEY (view, key)
);
COMMENT ON TABLE streamext_internal.alert_state IS 'what alerts know of keys; read it in streamext.alerts';

CREATE TABLE streamext_internal.alert_event (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	view oid NOT NULL,
	key jsonb NOT NULL,
	kind text NOT NULL,
	at timestamptz NOT NULL,
	"row" jsonb
);
CREATE INDEX alert_event_view ON streamext_internal.alert_event (view, id);
COMMENT ON TABLE streamext_internal.alert_event IS 'what alerts have told; read it in streamext.alert_events';

CREATE TABLE streamext_internal.alert_view (
	view oid PRIMARY KEY,
	evaluated_at timestamptz,
	last_error text,
	last_error_at timestamptz
);
COMMENT ON TABLE streamext_internal.alert_view IS 'how alerts were evaluated; read it in streamext.alert_views';

CREATE VIEW streamext.alerts WITH (security_barrier) AS
SELECT a.view::pg_catalog.regclass AS view, a.key, a.state, a.since, a."row"
FROM streamext_internal.alert_state AS a
WHERE a.state IS NOT NULL AND pg_catalog.has_table_privilege(a.view, 'SELECT');
GRANT SELECT ON streamext.alerts TO PUBLIC;
COMMENT ON VIEW streamext.alerts IS 'alerts that are pending or firing now, of the views that the user may read';
COMMENT ON COLUMN streamext.alerts.state IS 'pending (not for as long as hold yet), firing';
COMMENT ON COLUMN streamext.alerts.since IS 'when it came into this state';
COMMENT ON COLUMN streamext.alerts."row" IS 'the row of the key, the last one if it is not there';

CREATE VIEW streamext.alert_events WITH (security_barrier) AS
SELECT e.id, e.view::pg_catalog.regclass AS view, e.key, e.kind, e.at, e."row"
FROM streamext_internal.alert_event AS e
WHERE pg_catalog.has_table_privilege(e.view, 'SELECT');
GRANT SELECT ON streamext.alert_events TO PUBLIC;
COMMENT ON VIEW streamext.alert_events IS 'what alerts have told, the newest 10000 of each';
COMMENT ON COLUMN streamext.alert_events.kind IS 'fired, cleared, repeated';

CREATE VIEW streamext.alert_views WITH (security_barrier) AS
SELECT v.oid::pg_catalog.regclass AS view, CASE WHEN streamext_internal.may_see_reasons(v.oid) THEN a.last_error
       WHEN a.last_error IS NOT NULL THEN 'the error is for who may read all that the view reads' END AS last_error, a.last_error_at
FROM pg_catalog.pg_class AS v LEFT JOIN streamext_internal.alert_view AS a ON a.view OPERATOR(pg_catalog.=) v.oid
WHERE v.relkind OPERATOR(pg_catalog.=) 'v' AND pg_catalog.has_table_privilege(v.oid, 'SELECT') AND
      EXISTS (SELECT 1 FROM pg_catalog.pg_options_to_table(v.reloptions) AS o
              WHERE o.option_name OPERATOR(pg_catalog.=) 'streamext.alert' AND o.option_value::pg_catalog.bool);
GRANT SELECT ON streamext.alert_views TO PUBLIC;
COMMENT ON VIEW streamext.alert_views IS 'a row for each alert';
COMMENT ON COLUMN streamext.alert_views.last_error IS 'why its last evaluation failed; NULL: it did not';

/* ---- views' aggregates aggregated further ---- */

CREATE FUNCTION streamext_internal.merge_step(internal, anyelement) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_refuse';
COMMENT ON FUNCTION streamext_internal.merge_step(internal, anyelement) IS 'internal: refuses; the planner puts streamext_internal.merge_states in the place of streamext.merge';

CREATE FUNCTION streamext_internal.merge_final(internal, anyelement) RETURNS anyelement
LANGUAGE c IMMUTABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_refuse';
COMMENT ON FUNCTION streamext_internal.merge_final(internal, anyelement) IS 'internal: refuses, as streamext_internal.merge_step';

CREATE AGGREGATE streamext.merge(anyelement) (
	SFUNC = streamext_internal.merge_step, STYPE = internal, FINALFUNC = streamext_internal.merge_final, FINALFUNC_EXTRA, PARALLEL = RESTRICTED);
COMMENT ON AGGREGATE streamext.merge(anyelement) IS
'an aggregate column of a continuous view, aggregated over its rows as if all that is in them were one group';

CREATE FUNCTION streamext_internal.merge_states_step(internal, state bytea, view oid, number integer, anyelement) RETURNS internal
LANGUAGE c VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_states_step';
COMMENT ON FUNCTION streamext_internal.merge_states_step(internal, bytea, oid, integer, anyelement) IS 'internal: transition of streamext_internal.merge_states';

CREATE FUNCTION streamext_internal.merge_states_final(internal, state bytea, view oid, number integer, anyelement) RETURNS anyelement
LANGUAGE c VOLATILE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_states_final';
COMMENT ON FUNCTION streamext_internal.merge_states_final(internal, bytea, oid, integer, anyelement) IS 'internal: result of streamext_internal.merge_states';

CREATE AGGREGATE streamext_internal.merge_states(state bytea, view oid, number integer, anyelement) (
	SFUNC = streamext_internal.merge_states_step, STYPE = internal, FINALFUNC = streamext_internal.merge_states_final, FINALFUNC_EXTRA, PARALLEL = RESTRICTED);
COMMENT ON AGGREGATE streamext_internal.merge_states(bytea, oid, integer, anyelement) IS
'internal: what the planner makes of streamext.merge; takes states of the same statement only';

/* ---- partials: aggregates of a view finished on another server ---- */

CREATE FUNCTION streamext.partial("column" anyelement) RETURNS bytea
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_partial_refuse';
COMMENT ON FUNCTION streamext.partial(anyelement) IS
'the state of an aggregate column of a continuous view, as bytes that streamext.merge finishes on any server';

CREATE FUNCTION streamext_internal.partial_state(state bytea, view oid, number integer, reader oid, named boolean) RETURNS bytea
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_partial_state';
COMMENT ON FUNCTION streamext_internal.partial_state(bytea, oid, integer, oid, boolean) IS 'internal: what the planner makes of streamext.partial';

CREATE FUNCTION streamext_internal.merge_partial_step(internal, partial bytea) RETURNS internal
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_partial_step';
COMMENT ON FUNCTION streamext_internal.merge_partial_step(internal, bytea) IS 'internal: transition of streamext.merge(bytea)';
CREATE FUNCTION streamext_internal.merge_partial_step(internal, partial bytea, anyelement) RETURNS internal
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_partial_step';
COMMENT ON FUNCTION streamext_internal.merge_partial_step(internal, bytea, anyelement) IS 'internal: transition of streamext.merge(bytea, anyelement)';
CREATE FUNCTION streamext_internal.merge_partial_step(internal, partial bytea, anyelement, definition text) RETURNS internal
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_partial_step';
COMMENT ON FUNCTION streamext_internal.merge_partial_step(internal, bytea, anyelement, text) IS 'internal: transition of streamext.merge(bytea, anyelement, text)';

CREATE FUNCTION streamext_internal.merge_partial_final(internal, partial bytea) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_partial_final';
COMMENT ON FUNCTION streamext_internal.merge_partial_final(internal, bytea) IS 'internal: result of streamext.merge(bytea)';
CREATE FUNCTION streamext_internal.merge_partial_final(internal, partial bytea, anyelement) RETURNS anyelement
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_partial_final';
COMMENT ON FUNCTION streamext_internal.merge_partial_final(internal, bytea, anyelement) IS 'internal: result of streamext.merge(bytea, anyelement)';
CREATE FUNCTION streamext_internal.merge_partial_final(internal, partial bytea, anyelement, definition text) RETURNS anyelement
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_merge_partial_final';
COMMENT ON FUNCTION streamext_internal.merge_partial_final(internal, bytea, anyelement, text) IS 'internal: result of streamext.merge(bytea, anyelement, text)';

CREATE AGGREGATE streamext.merge(partial bytea) (
	SFUNC = streamext_internal.merge_partial_step, STYPE = internal, FINALFUNC = streamext_internal.merge_partial_final, FINALFUNC_EXTRA, PARALLEL = RESTRICTED);
COMMENT ON AGGREGATE streamext.merge(bytea) IS
'partials of streamext.partial, also of other servers, merged and finished: the value as text, to be cast to its type';
CREATE AGGREGATE streamext.merge(partial bytea, anyelement) (
	SFUNC = streamext_internal.merge_partial_step, STYPE = internal, FINALFUNC = streamext_internal.merge_partial_final, FINALFUNC_EXTRA, PARALLEL = RESTRICTED);
COMMENT ON AGGREGATE streamext.merge(bytea, anyelement) IS
'the same, as a value of the type of the second argument, a NULL';
CREATE AGGREGATE streamext.merge(partial bytea, anyelement, definition text) (
	SFUNC = streamext_internal.merge_partial_step, STYPE = internal, FINALFUNC = streamext_internal.merge_partial_final, FINALFUNC_EXTRA, PARALLEL = RESTRICTED);
COMMENT ON AGGREGATE streamext.merge(bytea, anyelement, text) IS
'the same for partials of just this aggregate, which may be a user''s';

/* ---- shards: one view over several servers ---- */

CREATE FUNCTION streamext.shard_id() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_shard_id';
COMMENT ON FUNCTION streamext.shard_id() IS 'this database among those of all servers';

CREATE FUNCTION streamext.shard_rows_of(fingerprint text) RETURNS text
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_shard_refuse';
COMMENT ON FUNCTION streamext.shard_rows_of(text) IS 'internal: stands in views that streamext.shard_view reads; the shard';
CREATE FUNCTION streamext.shard_key(number integer, anyelement) RETURNS anyelement
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_shard_refuse';
COMMENT ON FUNCTION streamext.shard_key(integer, anyelement) IS 'internal: the same; a key of the continuous view';
CREATE FUNCTION streamext.shard_partial(number integer) RETURNS bytea
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_shard_refuse';
COMMENT ON FUNCTION streamext.shard_partial(integer) IS 'internal: the same; the state of an aggregate of the continuous view';

CREATE FUNCTION streamext.shard_last() RETURNS timestamptz
LANGUAGE c STABLE PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_shard_refuse';
COMMENT ON FUNCTION streamext.shard_last() IS 'internal: the same; the time of a session''s last row';

CREATE FUNCTION streamext_internal.shard_prepare() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'streamext_shard_prepare';
REVOKE ALL ON FUNCTION streamext_internal.shard_prepare() FROM PUBLIC;
COMMENT ON FUNCTION streamext_internal.shard_prepare() IS 'internal: a shard''s part of streamext.shard_view';

CREATE VIEW streamext.shard_request AS
SELECT NULL::pg_catalog.text AS view, NULL::pg_catalog.text AS relation, NULL::pg_catalog.text AS columns, NULL::pg_catalog.text AS query,
       NULL::pg_catalog.text AS same, NULL::pg_catalog.text AS id, NULL::pg_catalog.text AS partitions
WHERE false;
CREATE TRIGGER shard_prepare INSTEAD OF INSERT ON streamext.shard_request FOR EACH ROW EXECUTE FUNCTION streamext_internal.shard_prepare();
GRANT SELECT, INSERT ON streamext.shard_request TO PUBLIC;
COMMENT ON VIEW streamext.shard_request IS
'internal: what streamext.shard_view asks of each server: INSERT (view) ... RETURNING makes the view of rows beside the continuous view, as who inserts';
COMMENT ON COLUMN streamext.shard_request.view IS 'the continuous view';
COMMENT ON COLUMN streamext.shard_request.relation IS 'the view of its rows';
COMMENT ON COLUMN streamext.shard_request.columns IS 'the rows'' columns';
COMMENT ON COLUMN streamext.shard_request.query IS 'the query that merges rows of all shards';
COMMENT ON COLUMN streamext.shard_request.same IS 'what has to be the same on all shards';
COMMENT ON COLUMN streamext.shard_request.id IS 'streamext.shard_id()';
COMMENT ON COLUMN streamext.shard_request.partitions IS 'the stream''s option of that name';

CREATE VIEW streamext.shard_state AS
SELECT streamext.shard_id() AS id, pg_catalog.format('%I.%I', n.nspname, c.relname) AS view, s.partitions, v.state, s.watermark, s.lag_rows, s.lag_seconds,
       v.accepted, v.late, v.rejected, v.sealed_until
FROM streamext.continuous_views AS v
JOIN streamext.streams AS s ON s.stream OPERATOR(pg_catalog.=) v.stream
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) v.view::pg_catalog.oid
JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace;
GRANT SELECT ON streamext.shard_state TO PUBLIC;
COMMENT ON VIEW streamext.shard_state IS 'what a shard tells of its continuous views to who merges them';
COMMENT ON COLUMN streamext.shard_state.id IS 'streamext.shard_id()';
COMMENT ON COLUMN streamext.shard_state.view IS 'the continuous view, qualified';

CREATE FUNCTION streamext.shard_up(state regclass, id text) RETURNS text
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_shard_up';
COMMENT ON FUNCTION streamext.shard_up(regclass, text) IS 'internal: stands in views of streamext.shard_view; the shard''s id, NULL if its server cannot be reached';
CREATE FUNCTION streamext.shards_away(states regclass[]) RETURNS text[]
LANGUAGE c STABLE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_shards_away';
COMMENT ON FUNCTION streamext.shards_away(regclass[]) IS 'internal: stands in views of streamext.shard_view; the servers that cannot be reached, NULL if there are none';

CREATE FUNCTION streamext.shard_view(view text, servers text[], away text DEFAULT 'error') RETURNS regclass
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_shard_view';
COMMENT ON FUNCTION streamext.shard_view(text, text[], text) IS
'makes, and returns, a view over the continuous view of this name on several servers of postgres_fdw; away: error, or name (servers that cannot be reached are named in a column)';

CREATE FUNCTION streamext.fill(view anyelement, "from" timestamptz, "to" timestamptz, mode text DEFAULT 'null') RETURNS SETOF anyelement
LANGUAGE c VOLATILE PARALLEL RESTRICTED
SET search_path TO pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'streamext_fill';
COMMENT ON FUNCTION streamext.fill(anyelement, timestamptz, timestamptz, text) IS
'the windows of a continuous view (NULL::view) that start in a range, also those without a row, for the keys that there are; mode: null, last or interpolate';

/* ---- logical replication ---- */

-- What a publication of all tables brings from another server is not taken (src/sql/replicated.c).
CREATE FUNCTION streamext_internal.refuse_replicated() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'streamext_refuse_replicated';

REVOKE ALL ON FUNCTION streamext_internal.refuse_replicated() FROM PUBLIC;
COMMENT ON FUNCTION streamext_internal.refuse_replicated() IS 'internal: rows of the extension''s tables that logical replication brings are not taken';

CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.dead_letter FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.dead_letter ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.late_row FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.late_row ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.into_position FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.into_position ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.into_window FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.into_window ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.stream_event FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.stream_event ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.history FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.history ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.checkpoint_log FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.checkpoint_log ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.paused FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.paused ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.seek_request FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.seek_request ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.retry_request FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.retry_request ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.round FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.round ENABLE REPLICA TRIGGER refuse_replicated;

-- What the numbers stand for by which state names the definition or source that it is of. No dump carries it, as it carries no state.
CREATE TABLE streamext_internal.content (
    object oid NOT NULL,
    number bigint NOT NULL,
    content bytea NOT NULL,
    types bytea NOT NULL,
    CONSTRAINT content_pkey PRIMARY KEY (object, number)
);
COMMENT ON TABLE streamext_internal.content IS 'Definitions of continuous views, and what streams read, in full: what kept state was made for.';
COMMENT ON COLUMN streamext_internal.content.object IS 'View or stream.';
COMMENT ON COLUMN streamext_internal.content.number IS 'What checkpoints and history call it.';
COMMENT ON COLUMN streamext_internal.content.content IS 'The definition.';
COMMENT ON COLUMN streamext_internal.content.types IS 'Layouts of composite types whose values the state holds.';
REVOKE ALL ON TABLE streamext_internal.content FROM PUBLIC;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.content FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.content ENABLE REPLICA TRIGGER refuse_replicated;

/* ---- an engine beside: views that are computed outside and merged here ---- */

CREATE TABLE streamext.exported (
	view regclass PRIMARY KEY,
	engine text NOT NULL,
	query text NOT NULL,
	options text[] NOT NULL,
	partials regclass,
	run uuid,
	begun_at timestamptz,
	seen_at timestamptz,
	positions jsonb NOT NULL DEFAULT '{}',
	newest jsonb NOT NULL DEFAULT '{}',
	watermark timestamptz,
	delivered bigint NOT NULL DEFAULT 0,
	late bigint NOT NULL DEFAULT 0,
	rejected bigint NOT NULL DEFAULT 0,
	last_merge_at timestamptz,
	merge_ms double precision,
	rows_merged bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 50);
REVOKE ALL ON TABLE streamext.exported FROM PUBLIC;
-- Dumped: the merged partials are in an ordinary table, and mean nothing without the positions. view is written by name; a row of none, as
-- is left where the library was not loaded when the view was dropped, would be taken for a view's that gets its OID there.
SELECT pg_catalog.pg_extension_config_dump('streamext.exported',
	'WHERE EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) view)');
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext.exported FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext.exported ENABLE REPLICA TRIGGER refuse_replicated;
COMMENT ON TABLE streamext.exported IS 'Continuous views that an engine outside computes, as they were, and how far it is.';
COMMENT ON COLUMN streamext.exported.view IS 'View.';
COMMENT ON COLUMN streamext.exported.engine IS 'Dialect of its plan.';
COMMENT ON COLUMN streamext.exported.query IS 'Its query as a continuous view.';
COMMENT ON COLUMN streamext.exported.options IS 'Its options then.';
COMMENT ON COLUMN streamext.exported.partials IS 'The table of merged partials.';
COMMENT ON COLUMN streamext.exported.run IS 'The one that may merge.';
COMMENT ON COLUMN streamext.exported.begun_at IS 'When that began.';
COMMENT ON COLUMN streamext.exported.seen_at IS 'When the engine called last.';
COMMENT ON COLUMN streamext.exported.positions IS 'Next offsets: {topic: {partition: offset}}.';
COMMENT ON COLUMN streamext.exported.newest IS 'Newest event times, and when they were merged: {topic: {partition: {t, at}}}.';
COMMENT ON COLUMN streamext.exported.watermark IS 'By which the next batch is judged.';
COMMENT ON COLUMN streamext.exported.delivered IS 'Records.';
COMMENT ON COLUMN streamext.exported.late IS 'Records too late.';
COMMENT ON COLUMN streamext.exported.rejected IS 'Records rejected.';
COMMENT ON COLUMN streamext.exported.last_merge_at IS 'When a batch was merged.';
COMMENT ON COLUMN streamext.exported.merge_ms IS 'How long that took.';
COMMENT ON COLUMN streamext.exported.rows_merged IS 'Partial rows of all batches.';

-- A restored view's table goes with the view as it did: dependencies are not dumped.
CREATE FUNCTION streamext_internal.export_restored() RETURNS trigger
LANGUAGE c
AS 'MODULE_PATHNAME', 'streamext_export_restored';
REVOKE ALL ON FUNCTION streamext_internal.export_restored() FROM PUBLIC;
COMMENT ON FUNCTION streamext_internal.export_restored() IS 'internal: the table of a restored exported view goes with the view';
CREATE TRIGGER restored AFTER INSERT ON streamext.exported FOR EACH ROW EXECUTE FUNCTION streamext_internal.export_restored();

CREATE FUNCTION streamext.export(view regclass, engine text) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_export_view';
COMMENT ON FUNCTION streamext.export(regclass, text) IS
'from commit on an engine outside computes the continuous view, which stays what it is for its readers';

CREATE FUNCTION streamext.import(view regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_import_view';
COMMENT ON FUNCTION streamext.import(regclass) IS 'takes an exported view back: the stream''s worker goes on from what the engine has merged';

CREATE FUNCTION streamext.export_plan(view regclass, dialect text DEFAULT 'spark') RETURNS jsonb
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_export_plan';
COMMENT ON FUNCTION streamext.export_plan(regclass, text) IS
'what an engine would compute of a continuous view, in its own SQL; raises 0A000 naming what cannot be exported';

CREATE FUNCTION streamext.export_begin(view regclass, OUT run uuid, OUT plan jsonb, OUT positions jsonb, OUT watermark timestamptz) RETURNS record
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_export_begin';
COMMENT ON FUNCTION streamext.export_begin(regclass) IS
'an engine begins, or begins again: earlier runs merge nothing any more; positions: where to go on';

CREATE FUNCTION streamext.export_merge(view regclass, run uuid, positions jsonb, newest jsonb, counts jsonb) RETURNS timestamptz
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_export_merge';
COMMENT ON FUNCTION streamext.export_merge(regclass, uuid, jsonb, jsonb, jsonb) IS
'merges a batch from the session''s stage tables and advances positions, in one transaction; returns the watermark';

CREATE FUNCTION streamext.export_rows(view regclass, batch regclass) RETURNS SETOF record
LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'streamext_export_rows';
COMMENT ON FUNCTION streamext.export_rows(regclass, regclass) IS
'internal: raw records decoded, with keys and arguments of the view''s aggregates; what plans of the dialect postgres read';

CREATE FUNCTION streamext.export_now(step bigint) RETURNS timestamptz
LANGUAGE c STABLE STRICT PARALLEL SAFE
AS 'MODULE_PATHNAME', 'streamext_export_now';
COMMENT ON FUNCTION streamext.export_now(bigint) IS 'internal: now() of an exported view''s sliding window, in steps of so many microseconds';

CREATE FUNCTION streamext.export_spread(n numeric, x numeric, xx numeric, sample boolean, root boolean) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE
SET search_path TO pg_catalog, pg_temp
-- The root of the variance to the variance's scale, as PostgreSQL's own: sqrt() rounds to more digits, which must not make a half of what is less.
AS $$ SELECT CASE WHEN NOT $5 OR v.v IS NULL THEN v.v WHEN pg_catalog.scale(v.v) IS NULL THEN pg_catalog.sqrt(v.v)
	            WHEN r.r OPERATOR(pg_catalog.>) 0 AND v.v OPERATOR(pg_catalog.<) ((r.r OPERATOR(pg_catalog.-) u.half) OPERATOR(pg_catalog.*) (r.r OPERATOR(pg_catalog.-) u.half))
	            THEN r.r OPERATOR(pg_catalog.-) u.unit ELSE r.r END
	FROM (SELECT CASE WHEN d.d OPERATOR(pg_catalog.=) 0 THEN NULL WHEN d.a OPERATOR(pg_catalog.<=) 0 THEN 0 ELSE d.a OPERATOR(pg_catalog./) d.d END AS v
	      FROM (SELECT ($1 OPERATOR(pg_catalog.*) $3) OPERATOR(pg_catalog.-) ($2 OPERATOR(pg_catalog.*) $2) AS a,
	                   CASE WHEN $4 THEN $1 OPERATOR(pg_catalog.*) ($1 OPERATOR(pg_catalog.-) 1) ELSE $1 OPERATOR(pg_catalog.*) $1 END AS d) AS d) AS v,
	     LATERAL (SELECT pg_catalog.round(pg_catalog.sqrt(CASE WHEN $5 THEN v.v END), pg_catalog.scale(v.v)) AS r) AS r,
	     LATERAL (SELECT ('1e-' OPERATOR(pg_catalog.||) pg_catalog.scale(v.v))::pg_catalog.numeric AS unit,
	                     ('5e-' OPERATOR(pg_catalog.||) (pg_catalog.scale(v.v) OPERATOR(pg_catalog.+) 1))::pg_catalog.numeric AS half) AS u $$;
COMMENT ON FUNCTION streamext.export_spread(numeric, numeric, numeric, boolean, boolean) IS
'internal: variance or standard deviation of integers and numeric from count, sum and sum of squares, as PostgreSQL''s own';

CREATE AGGREGATE streamext.export_moments(double precision[]) (
	SFUNC = pg_catalog.float8_combine, STYPE = double precision[], INITCOND = '{0,0,0}', COMBINEFUNC = pg_catalog.float8_combine, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.export_moments(double precision[]) IS 'internal: states of variances merged';
CREATE AGGREGATE streamext.export_regression(double precision[]) (
	SFUNC = pg_catalog.float8_regr_combine, STYPE = double precision[], INITCOND = '{0,0,0,0,0,0}', COMBINEFUNC = pg_catalog.float8_regr_combine, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.export_regression(double precision[]) IS 'internal: states of regressions merged';

-- Sets of distinct values as arrays, and sketches of the values that an engine has sent. export_set stands in exported views.
CREATE FUNCTION streamext_internal.export_set_add(internal, anyarray) RETURNS internal
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_set_add';
COMMENT ON FUNCTION streamext_internal.export_set_add(internal, anyarray) IS 'internal: transition of export_set';
CREATE FUNCTION streamext_internal.export_set_final(internal, anyarray) RETURNS anyarray
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_set_final';
COMMENT ON FUNCTION streamext_internal.export_set_final(internal, anyarray) IS 'internal: result of export_set';
CREATE FUNCTION streamext_internal.export_set_merge(anyarray, anyarray) RETURNS anyarray
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_set_merge';
COMMENT ON FUNCTION streamext_internal.export_set_merge(anyarray, anyarray) IS 'internal: two sets of distinct values as one';
CREATE AGGREGATE streamext.export_set(anyarray) (
	SFUNC = streamext_internal.export_set_add, STYPE = internal, FINALFUNC = streamext_internal.export_set_final, FINALFUNC_EXTRA, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext.export_set(anyarray) IS 'internal: distinct elements of arrays, in order, without NULLs';
CREATE FUNCTION streamext_internal.export_distinct_add(streamext.distinct_sketch, anyarray) RETURNS streamext.distinct_sketch
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_distinct_add_all';
COMMENT ON FUNCTION streamext_internal.export_distinct_add(streamext.distinct_sketch, anyarray) IS 'internal: transition of export_distinct';
CREATE AGGREGATE streamext_internal.export_distinct(anyarray) (
	SFUNC = streamext_internal.export_distinct_add, STYPE = streamext.distinct_sketch, SSPACE = 512, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext_internal.export_distinct(anyarray) IS 'internal: sketch of the elements of arrays';
CREATE FUNCTION streamext_internal.export_percentile_add(streamext.percentile_sketch, double precision[]) RETURNS streamext.percentile_sketch
LANGUAGE c IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'streamext_percentile_add_all';
COMMENT ON FUNCTION streamext_internal.export_percentile_add(streamext.percentile_sketch, double precision[]) IS 'internal: transition of export_percentile';
CREATE AGGREGATE streamext_internal.export_percentile(double precision[]) (
	SFUNC = streamext_internal.export_percentile_add, STYPE = streamext.percentile_sketch, SSPACE = 1024, PARALLEL = SAFE);
COMMENT ON AGGREGATE streamext_internal.export_percentile(double precision[]) IS 'internal: sketch of the elements of arrays';

CREATE VIEW streamext.exports WITH (security_barrier) AS
SELECT e.view, e.engine, e.run,
       CASE WHEN e.run IS NULL THEN 'never_started'
            WHEN e.seen_at OPERATOR(pg_catalog.<) (pg_catalog.now() OPERATOR(pg_catalog.-) '1 minute'::pg_catalog.interval) THEN 'silent'
            ELSE 'running' END AS state,
       e.positions, e.watermark, e.delivered, e.delivered OPERATOR(pg_catalog.-) e.late OPERATOR(pg_catalog.-) e.rejected AS accepted, e.late, e.rejected,
       e.last_merge_at, e.merge_ms, e.rows_merged
FROM streamext.exported AS e
JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) e.view
WHERE pg_catalog.has_table_privilege(c.oid, 'SELECT, INSERT');
GRANT SELECT ON streamext.exports TO PUBLIC;
COMMENT ON VIEW streamext.exports IS 'views that an engine outside computes';
COMMENT ON COLUMN streamext.exports.view IS 'the view';
COMMENT ON COLUMN streamext.exports.engine IS 'dialect of its plan';
COMMENT ON COLUMN streamext.exports.run IS 'the run that may merge';
COMMENT ON COLUMN streamext.exports.state IS 'never_started, running, or silent: nothing heard for a minute';
COMMENT ON COLUMN streamext.exports.positions IS 'next offset of each partition: everything before it is counted';
COMMENT ON COLUMN streamext.exports.watermark IS 'by which the next batch is judged';
COMMENT ON COLUMN streamext.exports.delivered IS 'records of all batches merged';
COMMENT ON COLUMN streamext.exports.accepted IS 'delivered, less late and rejected';
COMMENT ON COLUMN streamext.exports.late IS 'records that came when their windows were closed';
COMMENT ON COLUMN streamext.exports.rejected IS 'records that could not be decoded, or on which an expression raised';
COMMENT ON COLUMN streamext.exports.last_merge_at IS 'when the last batch was merged';
COMMENT ON COLUMN streamext.exports.merge_ms IS 'how long that took';
COMMENT ON COLUMN streamext.exports.rows_merged IS 'partial rows of all batches';

/* ---- what goes out to other systems ---- */

-- Not dumped (no pg_extension_config_dump), as the other tables are not: rows are for this server's foreign tables, known by OID.
CREATE TABLE streamext_internal.outbox (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	target oid NOT NULL,
	view oid NOT NULL,
	at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
	topic text,
	key bytea,
	payload bytea,
	headers text,
	reason text
);
CREATE INDEX outbox_waiting ON streamext_internal.outbox (target, id) WHERE reason IS NULL;
CREATE INDEX outbox_dead ON streamext_internal.outbox (target, id) WHERE reason IS NOT NULL;
REVOKE ALL ON TABLE streamext_internal.outbox FROM PUBLIC;
COMMENT ON TABLE streamext_internal.outbox IS 'Rows inserted into foreign tables of other systems, until they have arrived there.';
COMMENT ON COLUMN streamext_internal.outbox.view IS 'The continuous view whose rows they are; 0: a session''s INSERT.';
COMMENT ON COLUMN streamext_internal.outbox.reason IS 'Why the other system does not take the row, however often it is sent; NULL: it waits.';

CREATE TABLE streamext_internal.sink_target (
	target oid PRIMARY KEY,
	batch bigint,
	ids bigint[],
	state text NOT NULL DEFAULT 'running',
	last_error text,
	last_error_at timestamptz
) WITH (fillfactor = 50);
REVOKE ALL ON TABLE streamext_internal.sink_target FROM PUBLIC;
COMMENT ON TABLE streamext_internal.sink_target IS 'Foreign tables whose rows are sent to other systems: how that goes, and which rows are on their way under which number.';

CREATE TABLE streamext_internal.sink_count (
	target oid NOT NULL,
	view oid NOT NULL,
	delivered bigint NOT NULL,
	CONSTRAINT sink_count_pkey PRIMARY KEY (target, view)
) WITH (fillfactor = 50);
REVOKE ALL ON TABLE streamext_internal.sink_count FROM PUBLIC;
COMMENT ON TABLE streamext_internal.sink_count IS 'Rows that have arrived, of each view (0: of sessions'' INSERTs).';

-- Not dumped: they say what is in topics that this server's foreign tables name.
CREATE TABLE streamext_internal.emitted (
	view oid NOT NULL,
	digest bytea NOT NULL,
	key jsonb NOT NULL,
	CONSTRAINT emitted_pkey PRIMARY KEY (view, digest)
);
REVOKE ALL ON TABLE streamext_internal.emitted FROM PUBLIC;
COMMENT ON TABLE streamext_internal.emitted IS 'Keys of rows that views with streamext.emit = ''changes'' have put into their targets and not taken back.';

CREATE TABLE streamext_internal.emitted_view (
	view oid PRIMARY KEY,
	version bigint NOT NULL DEFAULT 0,
	last_error text,
	last_error_at timestamptz
) WITH (fillfactor = 50);
REVOKE ALL ON TABLE streamext_internal.emitted_view FROM PUBLIC;
COMMENT ON TABLE streamext_internal.emitted_view IS 'The version of the last changes of these views.';
COMMENT ON COLUMN streamext_internal.emitted.view IS 'The view.';
COMMENT ON COLUMN streamext_internal.emitted.digest IS 'SHA-256 of the key as text.';
COMMENT ON COLUMN streamext_internal.emitted.key IS 'Of the row that is in the target.';
COMMENT ON COLUMN streamext_internal.emitted_view.view IS 'The view.';
COMMENT ON COLUMN streamext_internal.emitted_view.version IS 'Rises with each lot of changes; the header version of the messages.';
COMMENT ON COLUMN streamext_internal.emitted_view.last_error IS 'Of the last delivery, if it has failed.';
COMMENT ON COLUMN streamext_internal.emitted_view.last_error_at IS 'When that was.';

CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.emitted FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.emitted ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.emitted_view FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.emitted_view ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.outbox FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.outbox ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.sink_target FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.sink_target ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.sink_count FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.sink_count ENABLE REPLICA TRIGGER refuse_replicated;

CREATE VIEW streamext.sinks WITH (security_barrier) AS
WITH queued AS (
    SELECT x.target, x.view, pg_catalog.count(*) FILTER (WHERE x.reason IS NULL) AS waiting,
           pg_catalog.count(*) FILTER (WHERE x.reason IS NOT NULL) AS dead,
           pg_catalog.min(x.at) FILTER (WHERE x.reason IS NULL) AS oldest, pg_catalog.max(x.reason) AS reason
    FROM streamext_internal.outbox AS x
    GROUP BY x.target, x.view
), pairs AS (
    SELECT d.refobjid AS target, d.objid AS view
    FROM pg_catalog.pg_depend AS d
    JOIN pg_catalog.pg_class AS v ON v.oid OPERATOR(pg_catalog.=) d.objid AND v.relkind OPERATOR(pg_catalog.=) 'v'
    JOIN pg_catalog.pg_foreign_table AS t ON t.ftrelid OPERATOR(pg_catalog.=) d.refobjid
    JOIN pg_catalog.pg_foreign_server AS s ON s.oid OPERATOR(pg_catalog.=) t.ftserver
    JOIN pg_catalog.pg_foreign_data_wrapper AS w ON w.oid OPERATOR(pg_catalog.=) s.srvfdw
    WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
      AND w.fdwname OPERATOR(pg_catalog.=) ANY (ARRAY['kafka', 'mqtt', 'webhook']::pg_catalog.name[])
    UNION SELECT o.target, o.view FROM queued AS o
    UNION SELECT c.target, c.view FROM streamext_internal.sink_count AS c
)
SELECT (CASE WHEN p.view OPERATOR(pg_catalog.<>) 0::pg_catalog.oid THEN p.view END)::pg_catalog.regclass AS view,
       p.target::pg_catalog.regclass AS target,
       CASE WHEN e.last_error IS NOT NULL THEN 'failed'
            WHEN s.state OPERATOR(pg_catalog.=) 'paused' THEN 'paused'
            WHEN s.state OPERATOR(pg_catalog.=) 'waiting' THEN 'stalled'
            ELSE COALESCE(t.state, 'running') END AS state,
       COALESCE(c.delivered, 0) AS delivered, COALESCE(o.waiting, 0) AS waiting, COALESCE(o.dead, 0) AS dead,
       COALESCE(GREATEST(EXTRACT(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) o.oldest), 0), 0)::pg_catalog.float8 AS lag_seconds,
       COALESCE(e.last_error, CASE WHEN s.state OPERATOR(pg_catalog.=) 'waiting' THEN 'the foreign table has no worker: it is about to start, or none is free (max_worker_processes)' END, t.last_error, o.reason) AS last_error,
       COALESCE(e.last_error_at, t.last_error_at) AS last_error_at
FROM pairs AS p
JOIN pg_catalog.pg_class AS r ON r.oid OPERATOR(pg_catalog.=) p.target
LEFT JOIN streamext_internal.emitted_view AS e ON e.view OPERATOR(pg_catalog.=) p.view
LEFT JOIN streamext_internal.get_streams() AS s ON s.stream::pg_catalog.oid OPERATOR(pg_catalog.=) p.target
LEFT JOIN streamext_internal.sink_target AS t ON t.target OPERATOR(pg_catalog.=) p.target
LEFT JOIN streamext_internal.sink_count AS c ON c.target OPERATOR(pg_catalog.=) p.target AND c.view OPERATOR(pg_catalog.=) p.view
LEFT JOIN queued AS o ON o.target OPERATOR(pg_catalog.=) p.target AND o.view OPERATOR(pg_catalog.=) p.view
WHERE pg_catalog.has_table_privilege(p.target, 'INSERT') OR pg_catalog.has_table_privilege(p.target, 'SELECT');
GRANT SELECT ON streamext.sinks TO PUBLIC;
COMMENT ON VIEW streamext.sinks IS 'rows on their way to other systems, of each view with streamext.into, of alerts and of INSERTs, into foreign tables that the user may read or insert into';
COMMENT ON COLUMN streamext.sinks.view IS 'whose rows they are; NULL: those of INSERT';
COMMENT ON COLUMN streamext.sinks.target IS 'the foreign table';
COMMENT ON COLUMN streamext.sinks.state IS 'running, stalled (the other system cannot be reached, or does not answer), paused (the foreign table is), failed (something has to be mended first)';
COMMENT ON COLUMN streamext.sinks.delivered IS 'rows that have arrived';
COMMENT ON COLUMN streamext.sinks.waiting IS 'rows that are committed and have not arrived';
COMMENT ON COLUMN streamext.sinks.dead IS 'rows that the other system does not take; streamext.retry_deliveries sends them again';
COMMENT ON COLUMN streamext.sinks.lag_seconds IS 'for how long the oldest of those that wait has waited';

CREATE FUNCTION streamext.retry_deliveries(target regclass) RETURNS bigint
LANGUAGE c VOLATILE STRICT
AS 'MODULE_PATHNAME', 'streamext_retry_deliveries';
COMMENT ON FUNCTION streamext.retry_deliveries(regclass) IS
'from commit on sends rows again that the other system has not taken (streamext.sinks.dead); returns how many; for the owner of the foreign table';
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.alert_state FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.alert_state ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.alert_event FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.alert_event ENABLE REPLICA TRIGGER refuse_replicated;
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.alert_view FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.alert_view ENABLE REPLICA TRIGGER refuse_replicated;

CREATE FUNCTION streamext_internal.webhook_validator(options text[], catalog oid) RETURNS void
LANGUAGE c STRICT
AS 'MODULE_PATHNAME', 'streamext_webhook_validator';
REVOKE ALL ON FUNCTION streamext_internal.webhook_validator(text[], oid) FROM PUBLIC;
COMMENT ON FUNCTION streamext_internal.webhook_validator(text[], oid) IS 'internal: options of webhook servers, user mappings and foreign tables';
CREATE FOREIGN DATA WRAPPER webhook HANDLER streamext.fdw_handler VALIDATOR streamext_internal.webhook_validator;
COMMENT ON FOREIGN DATA WRAPPER webhook IS 'foreign tables whose rows are sent to a URL';

/* ---- views over views ---- */

-- How far the closed windows of continuous views have gone to the views over them. Not dumped, as into_window is not: OIDs and positions are this server's.
CREATE TABLE streamext_internal.flow (
	view oid PRIMARY KEY,
	number bigint NOT NULL,
	inner_number bigint NOT NULL,
	begins bigint NOT NULL,
	written_until timestamptz NOT NULL
) WITH (fillfactor = 50);
REVOKE ALL ON TABLE streamext_internal.flow FROM PUBLIC;
COMMENT ON TABLE streamext_internal.flow IS 'of each continuous view over another one: windows of that one that end by then are in its journal; of sessions, those whose last row is not after it';
COMMENT ON COLUMN streamext_internal.flow.view IS 'The outer view.';
COMMENT ON COLUMN streamext_internal.flow.number IS 'Of what it counts: windows given under another number are void.';
COMMENT ON COLUMN streamext_internal.flow.inner_number IS 'Of the windows that it wants.';
COMMENT ON COLUMN streamext_internal.flow.begins IS 'From which position of its journal on it counts.';
CREATE TRIGGER refuse_replicated BEFORE INSERT OR UPDATE OR DELETE ON streamext_internal.flow FOR EACH ROW EXECUTE FUNCTION streamext_internal.refuse_replicated();
ALTER TABLE streamext_internal.flow ENABLE REPLICA TRIGGER refuse_replicated;

/* ---- what to change ---- */

CREATE FUNCTION streamext.advise(OUT object text, OUT setting text, OUT present text, OUT proposed text, OUT why text) RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
	-- no process to be had
	SELECT 'server', 'max_worker_processes', current_setting('max_worker_processes'), (current_setting('max_worker_processes')::integer + 2 * sum(s.workers))::text,
		   count(*)::text || ' stream(s) wait for a worker'
	FROM streamext.streams AS s WHERE s.state = 'waiting' AND s.state_since < clock_timestamp() - interval '10 s' HAVING count(*) > 0
	UNION ALL
	-- memory
	SELECT 'server', 'streamext.memory_limit', current_setting('streamext.memory_limit'), pg_size_pretty(2 * pg_size_bytes(current_setting('streamext.memory_limit'))),
		   'views of this database take ' || pg_size_pretty(sum(v.state_bytes)) || ', ' || count(*) FILTER (WHERE v.state = 'full')::text || ' view(s) are full'
	FROM streamext.continuous_views AS v
	HAVING sum(v.state_bytes) > 0.8 * pg_size_bytes(current_setting('streamext.memory_limit')) OR count(*) FILTER (WHERE v.state = 'full') > 0
	UNION ALL
	-- one process is not enough, and others could have partitions
	SELECT s.stream::text, 'workers', s.workers::text, least(p.n, 2 * s.workers, 16)::text,
		   'the stream is ' || s.lag_rows::text || ' records behind, more than a minute''s work, and has ' || p.n::text || ' partitions'
	FROM streamext.streams AS s
	CROSS JOIN LATERAL (SELECT count(*) AS n FROM streamext.stream_partitions AS x WHERE x.stream = s.stream) AS p
	WHERE s.connector = 'kafka' AND s.state IN ('running', 'catching_up') AND s.lag_rows > 60 * greatest(s.rate, 1000) AND p.n > s.workers
	UNION ALL
	-- the journal fills up
	SELECT p.stream::text, 'streamext.journal_limit', current_setting('streamext.journal_limit'), pg_size_pretty(2 * pg_size_bytes(current_setting('streamext.journal_limit'))),
		   'the journal of shard ' || p.shard::text || ' has ' || pg_size_pretty(p.journal_bytes) || ': what comes is not counted as fast, or the stream does not run'
	FROM streamext.stream_partitions AS p WHERE p.journal_bytes > 0.5 * pg_size_bytes(current_setting('streamext.journal_limit')) AND pg_size_bytes(current_setting('streamext.journal_limit')) > 0
	UNION ALL
	-- checkpoints take their share
	SELECT 'server', 'streamext.checkpoint_interval', current_setting('streamext.checkpoint_interval'), (ceil(max(w.checkpoint_ms) / 1000 * 20))::text || ' s',
		   'the last checkpoint of ' || (array_agg(w.stream::text ORDER BY w.checkpoint_ms DESC))[1] || ' took ' || round(max(w.checkpoint_ms))::text || ' ms of its worker'
	FROM streamext.workers AS w
	HAVING max(w.checkpoint_ms) > 100 AND max(w.checkpoint_ms) / 1000 * 10 > extract(epoch FROM current_setting('streamext.checkpoint_interval')::interval)
	UNION ALL
	-- rows that come too late
	SELECT v.stream::text, 'watermark_delay', coalesce((SELECT o.option_value FROM pg_foreign_table AS t, pg_options_to_table(t.ftoptions) AS o
			WHERE t.ftrelid = v.stream::oid AND o.option_name = 'watermark_delay'), '0'), 'longer, or streamext.lateness of the view',
		   v.late::text || ' of ' || (v.accepted + v.late)::text || ' records were late for view ' || v.view::text
	FROM streamext.continuous_views AS v WHERE v.late > 0.01 * (v.accepted + v.late) AND v.late >= 10
	UNION ALL
	-- records from the future
	SELECT e.stream::text, 'max_ahead', coalesce(e.present, '1 h'), 'shorter: as far as the clocks of who sends may be ahead',
		   count(*)::text || ' records of the last day have moved the watermark so far that others became late; the last one: ' || (array_agg(e.detail ORDER BY e.id DESC))[1]
	FROM (SELECT j.id, j.stream, j.detail, (SELECT o.option_value FROM pg_foreign_table AS t, pg_options_to_table(t.ftoptions) AS o
				WHERE t.ftrelid = j.stream::oid AND o.option_name = 'max_ahead') AS present
		  FROM streamext.stream_events AS j WHERE j.kind = 'jump' AND j."time" > now() - interval '1 day') AS e
	GROUP BY e.stream, e.present
	UNION ALL
	-- records that do not fit
	SELECT s.stream::text, 'columns', NULL, coalesce((SELECT c.hint FROM streamext.stream_columns AS c WHERE c.stream = s.stream AND c.hint IS NOT NULL LIMIT 1),
			'as streamext.dead_letters says'),
		   s.rejected::text || ' of ' || s.rows_in::text || ' records were rejected'
	FROM streamext.streams AS s WHERE s.rejected > 0.01 * s.rows_in AND s.rejected >= 10
	UNION ALL
	-- history for ever
	SELECT v.view::text, 'streamext.retention', 'for ever', 'as long as windows are asked for',
		   'its history has ' || pg_size_pretty(v.history_bytes) || ' and grows'
	FROM streamext.continuous_views AS v
	WHERE v.history_bytes > 1073741824 AND NOT EXISTS (SELECT FROM unnest(v.options) AS o WHERE o LIKE 'streamext.retention=%')
$$;
COMMENT ON FUNCTION streamext.advise() IS
'settings and options that the live counters of the streams and views that the user may see speak for changing, and why; no row: none';

CREATE FUNCTION streamext_internal.check_columns(relation regclass) RETURNS void
LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED
AS 'MODULE_PATHNAME', 'streamext_check_columns';
COMMENT ON FUNCTION streamext_internal.check_columns(regclass) IS 'internal: raises if a superuser would run casts of an ordinary role''s by making JSON of the rows';

CREATE FUNCTION streamext.compare(one regclass, other regclass, OUT only_in regclass, OUT contents jsonb, OUT copies bigint) RETURNS SETOF record
LANGUAGE plpgsql VOLATILE STRICT PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp SET extra_float_digits = '-3'
AS $$
BEGIN
	PERFORM streamext_internal.check_columns(one), streamext_internal.check_columns(other);
	RETURN QUERY EXECUTE format($q$
		WITH a AS MATERIALIZED (SELECT to_jsonb(x) AS r, count(*) AS n FROM %1$s AS x GROUP BY 1),
			 b AS MATERIALIZED (SELECT to_jsonb(x) AS r, count(*) AS n FROM %2$s AS x GROUP BY 1)
		SELECT CASE WHEN coalesce(a.n, 0) > coalesce(b.n, 0) THEN $1 ELSE $2 END, r, abs(coalesce(a.n, 0) - coalesce(b.n, 0))
		FROM a FULL JOIN b USING (r) WHERE a.n IS DISTINCT FROM b.n
		$q$, one, other) USING one, other;
END
$$;
COMMENT ON FUNCTION streamext.compare(regclass, regclass) IS
'the rows that one view, or table, has and the other has not, and how many copies; floats to 12 digits; no row: they hold the same';

/* ---- what has had no comment in 1.0 and before ---- */

COMMENT ON FUNCTION streamext_internal.distinct_sketch_add(streamext.distinct_sketch, anyelement) IS 'internal: transition of approx_distinct_sketch';
COMMENT ON FUNCTION streamext_internal.distinct_sketch_in(cstring) IS 'internal: input of distinct_sketch';
COMMENT ON FUNCTION streamext_internal.distinct_sketch_merge(streamext.distinct_sketch, streamext.distinct_sketch) IS 'internal: two sketches as one';
COMMENT ON FUNCTION streamext_internal.distinct_sketch_out(streamext.distinct_sketch) IS 'internal: output of distinct_sketch';
COMMENT ON FUNCTION streamext_internal.distinct_sketch_recv(internal) IS 'internal: binary input of distinct_sketch';
COMMENT ON FUNCTION streamext_internal.distinct_sketch_send(streamext.distinct_sketch) IS 'internal: binary output of distinct_sketch';
COMMENT ON FUNCTION streamext.fdw_handler() IS 'internal: handler of all foreign data wrappers of streamext';
COMMENT ON FUNCTION streamext_internal.first_add(bytea, anyelement, timestamptz) IS 'internal: transition of first';
COMMENT ON FUNCTION streamext_internal.first_last_final(bytea, anyelement, timestamptz) IS 'internal: result of first and last';
COMMENT ON FUNCTION streamext_internal.first_merge(bytea, bytea) IS 'internal: two states of first as one';
COMMENT ON FUNCTION streamext_internal.get_continuous_views() IS 'internal: what streamext.continuous_views shows';
COMMENT ON FUNCTION streamext_internal.get_stream_partitions() IS 'internal: what streamext.stream_partitions shows';
COMMENT ON FUNCTION streamext_internal.get_streams() IS 'internal: what streamext.streams shows';
COMMENT ON FUNCTION streamext_internal.get_workers() IS 'internal: what streamext.workers shows';
COMMENT ON FUNCTION streamext_internal.kafka_validator(text[], oid) IS 'internal: options of kafka';
COMMENT ON FUNCTION streamext_internal.last_add(bytea, anyelement, timestamptz) IS 'internal: transition of last';
COMMENT ON FUNCTION streamext_internal.last_merge(bytea, bytea) IS 'internal: two states of last as one';
COMMENT ON FUNCTION streamext_internal.local_validator(text[], oid) IS 'internal: options of local';
COMMENT ON FUNCTION streamext_internal.mqtt_validator(text[], oid) IS 'internal: options of mqtt';
COMMENT ON FUNCTION streamext_internal.percentile_sketch_add(streamext.percentile_sketch, double precision) IS 'internal: transition of percentile sketches';
COMMENT ON FUNCTION streamext_internal.percentile_sketch_add(streamext.percentile_sketch, double precision, double precision) IS 'internal: transition of approx_percentile';
COMMENT ON FUNCTION streamext_internal.percentile_sketch_final(streamext.percentile_sketch) IS 'internal: result of approx_percentile';
COMMENT ON FUNCTION streamext_internal.percentile_sketch_in(cstring) IS 'internal: input of percentile_sketch';
COMMENT ON FUNCTION streamext_internal.percentile_sketch_merge(streamext.percentile_sketch, streamext.percentile_sketch) IS 'internal: two sketches as one';
COMMENT ON FUNCTION streamext_internal.percentile_sketch_out(streamext.percentile_sketch) IS 'internal: output of percentile_sketch';
COMMENT ON FUNCTION streamext_internal.percentile_sketch_recv(internal) IS 'internal: binary input of percentile_sketch';
COMMENT ON FUNCTION streamext_internal.percentile_sketch_send(streamext.percentile_sketch) IS 'internal: binary output of percentile_sketch';
COMMENT ON FUNCTION streamext_internal.require_preload() IS 'internal: raises unless shared_preload_libraries has streamext';
COMMENT ON COLUMN streamext.stream_partitions.stream IS 'the stream, or a view that has one of its own: over views, or with UNION ALL';
COMMENT ON COLUMN streamext.stream_partitions.topic IS 'the source''s name for it: topic, filter, path; of a part of UNION ALL with its stream''s name behind it';
COMMENT ON COLUMN streamext.stream_partitions.partition IS 'its number in the topic; of mqtt and others that of the worker';
COMMENT ON COLUMN streamext.stream_partitions.rows_in IS 'records delivered';
COMMENT ON COLUMN streamext.stream_partitions.max_event_time IS 'the newest event time accepted';
COMMENT ON COLUMN streamext.workers.pid IS 'the process; NULL: there is none now';
COMMENT ON COLUMN streamext.workers.stream IS 'the stream';
COMMENT ON COLUMN streamext.workers.shard IS 'which of the stream''s workers, from 0';
COMMENT ON COLUMN streamext.workers.state IS 'as in streams, of this shard';
COMMENT ON COLUMN streamext.workers.started_at IS 'when the process was started';
COMMENT ON COLUMN streamext.late_rows.id IS 'in the order in which they were kept';
COMMENT ON COLUMN streamext.late_rows.stream IS 'the stream';
COMMENT ON COLUMN streamext.late_rows.topic IS 'of the record; of a part of UNION ALL with its stream''s name';
COMMENT ON COLUMN streamext.late_rows.partition IS 'of the record';
COMMENT ON COLUMN streamext.late_rows.event_time IS 'the row''s, for which no window was open';
COMMENT ON COLUMN streamext.stream_events.id IS 'in the order in which they were noted';
COMMENT ON COLUMN streamext.stream_events.time IS 'when it was noted';
COMMENT ON COLUMN streamext.stream_events.stream IS 'the stream';
COMMENT ON COLUMN streamext.stream_events.topic IS 'what it concerns; NULL: the whole stream';
COMMENT ON COLUMN streamext.stream_events.partition IS 'what it concerns; NULL: the whole stream';
COMMENT ON COLUMN streamext.stream_events.detail IS 'in words';
COMMENT ON COLUMN streamext.dead_letters.id IS 'for streamext.retry_dead_letters; later ones are greater';
COMMENT ON COLUMN streamext.dead_letters.stream IS 'the stream';
COMMENT ON COLUMN streamext.dead_letters.topic IS 'of the record; of a part of UNION ALL with its stream''s name';
COMMENT ON COLUMN streamext.dead_letters.partition IS 'of the record';
COMMENT ON COLUMN streamext.dead_letters.sqlstate IS 'of the error';
COMMENT ON COLUMN streamext.streams.stream IS 'the foreign table';
COMMENT ON COLUMN streamext.streams.connector IS 'its foreign data wrapper';
COMMENT ON COLUMN streamext.streams.format IS 'how its payloads are read';
COMMENT ON COLUMN streamext.streams.last_error IS 'the last one since the server was started; see last_error_past';
COMMENT ON COLUMN streamext.streams.last_error_at IS 'when it was noted';
COMMENT ON COLUMN streamext.stream_columns.stream IS 'the stream';
COMMENT ON COLUMN streamext.stream_columns."column" IS 'its name';
COMMENT ON COLUMN streamext.continuous_views.view IS 'the continuous view';
COMMENT ON COLUMN streamext.continuous_views.stream IS 'the stream that it reads; of UNION ALL the view itself, as in workers, stream_partitions and dead_letters';
COMMENT ON COLUMN streamext.continuous_views.definition IS 'its query';
COMMENT ON COLUMN streamext.continuous_views.window_slide IS 'of hop: from one window to the next';
COMMENT ON COLUMN streamext.continuous_views.datestyle IS 'DateStyle under which the view''s expressions run';
COMMENT ON COLUMN streamext.continuous_views.intervalstyle IS 'IntervalStyle under which they run';
COMMENT ON COLUMN streamext.continuous_views.options IS 'as in CREATE VIEW ... WITH';
COMMENT ON COLUMN streamext.continuous_views.last_error IS 'why it has failed, is full, or goes on by itself; NULL: none of these';
COMMENT ON COLUMN streamext.gateways.server IS 'the foreign server';
COMMENT ON COLUMN streamext.alerts.view IS 'the alert''s view';
COMMENT ON COLUMN streamext.alerts.key IS 'of the row, as streamext.key names its columns';
COMMENT ON COLUMN streamext.alert_events.id IS 'in the order of the events';
COMMENT ON COLUMN streamext.alert_events.view IS 'the alert''s view';
COMMENT ON COLUMN streamext.alert_events.key IS 'of the row';
COMMENT ON COLUMN streamext.alert_events.at IS 'by the clock of streamext.set_clock';
COMMENT ON COLUMN streamext.alert_events."row" IS 'the row that was judged';
COMMENT ON COLUMN streamext.alert_views.view IS 'the alert''s view';
COMMENT ON COLUMN streamext.alert_views.last_error_at IS 'when last_error was noted';
COMMENT ON COLUMN streamext.sinks.last_error IS 'why rows wait or are dead; NULL: nothing has gone wrong';
COMMENT ON COLUMN streamext.sinks.last_error_at IS 'when it was noted';
COMMENT ON COLUMN streamext_internal.dead_letter.id IS 'Key.';
COMMENT ON COLUMN streamext_internal.dead_letter.stream IS 'Stream.';
COMMENT ON COLUMN streamext_internal.dead_letter.view IS 'Continuous view that could not count it; 0: rejected for all.';
COMMENT ON COLUMN streamext_internal.dead_letter.topic IS 'Of the record.';
COMMENT ON COLUMN streamext_internal.dead_letter.partition IS 'Of the record.';
COMMENT ON COLUMN streamext_internal.dead_letter.position IS 'Of the record.';
COMMENT ON COLUMN streamext_internal.dead_letter.received_at IS 'When it was rejected.';
COMMENT ON COLUMN streamext_internal.dead_letter.sqlstate IS 'Of the error.';
COMMENT ON COLUMN streamext_internal.dead_letter.reason IS 'The error, at most 1 kB.';
COMMENT ON COLUMN streamext_internal.dead_letter.payload IS 'Of the record, at most 1 MB.';
COMMENT ON COLUMN streamext_internal.dead_letter.source IS 'What positions mean, as StreamCounted.source.';
COMMENT ON COLUMN streamext_internal.dead_letter.record IS 'The record as it is decoded again.';
COMMENT ON COLUMN streamext_internal.dead_letter.whole IS 'Whether record is all of it.';
COMMENT ON COLUMN streamext_internal.dead_letter.done IS 'Views that have counted it.';
COMMENT ON COLUMN streamext_internal.dead_letter.retry IS 'The request by which it was tried last.';
COMMENT ON COLUMN streamext_internal.late_row.id IS 'Key.';
COMMENT ON COLUMN streamext_internal.late_row.stream IS 'Stream.';
COMMENT ON COLUMN streamext_internal.late_row.view IS 'View that keeps it.';
COMMENT ON COLUMN streamext_internal.late_row.topic IS 'Of the record.';
COMMENT ON COLUMN streamext_internal.late_row.partition IS 'Of the record.';
COMMENT ON COLUMN streamext_internal.late_row.position IS 'Of the record.';
COMMENT ON COLUMN streamext_internal.late_row.event_time IS 'The row''s.';
COMMENT ON COLUMN streamext_internal.late_row.received_at IS 'When it came.';
COMMENT ON COLUMN streamext_internal.late_row.payload IS 'Of the record.';
COMMENT ON COLUMN streamext_internal.into_position.view IS 'View with streamext.into and no window.';
COMMENT ON COLUMN streamext_internal.into_position.stream IS 'Its stream.';
COMMENT ON COLUMN streamext_internal.into_position.topic IS 'Of the partition.';
COMMENT ON COLUMN streamext_internal.into_position.partition IS 'Its number.';
COMMENT ON COLUMN streamext_internal.into_position.position IS 'Next to be written.';
COMMENT ON COLUMN streamext_internal.into_position.accepted IS 'Counted up to there.';
COMMENT ON COLUMN streamext_internal.into_position.rejected IS 'Counted up to there.';
COMMENT ON COLUMN streamext_internal.into_window.view IS 'View with streamext.into and windows.';
COMMENT ON COLUMN streamext_internal.into_window.written_until IS 'Windows that end by then are written.';
COMMENT ON COLUMN streamext_internal.stream_event.id IS 'Key.';
COMMENT ON COLUMN streamext_internal.stream_event.time IS 'When it was noted.';
COMMENT ON COLUMN streamext_internal.stream_event.stream IS 'Stream.';
COMMENT ON COLUMN streamext_internal.stream_event.kind IS 'See streamext.stream_events.';
COMMENT ON COLUMN streamext_internal.stream_event.topic IS 'Or NULL.';
COMMENT ON COLUMN streamext_internal.stream_event.partition IS 'Or NULL.';
COMMENT ON COLUMN streamext_internal.stream_event.missed IS 'Records that are gone.';
COMMENT ON COLUMN streamext_internal.stream_event.detail IS 'In words.';
COMMENT ON COLUMN streamext_internal.history.view IS 'View.';
COMMENT ON COLUMN streamext_internal.history.shard IS 'Set of slices that it is of.';
COMMENT ON COLUMN streamext_internal.history.pane IS 'Pane that is sealed.';
COMMENT ON COLUMN streamext_internal.history.bucket IS 'Hash bucket of its groups.';
COMMENT ON COLUMN streamext_internal.history.part IS 'Piece of the slice.';
COMMENT ON COLUMN streamext_internal.history.definition IS 'Number in streamext_internal.content.';
COMMENT ON COLUMN streamext_internal.history.nrows IS 'Groups in it.';
COMMENT ON COLUMN streamext_internal.history.data IS 'Keys and states, compressed.';
COMMENT ON COLUMN streamext_internal.checkpoint_log.seq IS 'Checkpoint.';
COMMENT ON COLUMN streamext_internal.checkpoint_log.pane IS 'Of the groups.';
COMMENT ON COLUMN streamext_internal.checkpoint_log.stream IS 'Stream.';
COMMENT ON COLUMN streamext_internal.checkpoint_log.view IS 'View; 0: the stream itself.';
COMMENT ON COLUMN streamext_internal.checkpoint_log.shard IS 'Shard.';
COMMENT ON COLUMN streamext_internal.checkpoint_log.part IS 'Piece.';
COMMENT ON COLUMN streamext_internal.checkpoint_log.kind IS 'What data is.';
COMMENT ON COLUMN streamext_internal.checkpoint_log.data IS 'Layout in src/durable/checkpoint_log.c.';
COMMENT ON COLUMN streamext_internal.paused.relation IS 'Stream or view.';
COMMENT ON COLUMN streamext_internal.paused.since IS 'When streamext.pause was called.';
COMMENT ON COLUMN streamext_internal.seek_request.id IS 'Number.';
COMMENT ON COLUMN streamext_internal.seek_request.stream IS 'Stream.';
COMMENT ON COLUMN streamext_internal.seek_request.shard IS 'Shard that it is for.';
COMMENT ON COLUMN streamext_internal.seek_request.source IS 'What positions mean.';
COMMENT ON COLUMN streamext_internal.seek_request.kind IS 'SeekKind.';
COMMENT ON COLUMN streamext_internal.seek_request.time IS 'Of SEEK_TIME.';
COMMENT ON COLUMN streamext_internal.seek_request.topic IS 'Of SEEK_OFFSET.';
COMMENT ON COLUMN streamext_internal.seek_request.partition IS 'Of SEEK_OFFSET.';
COMMENT ON COLUMN streamext_internal.seek_request.rebuild IS 'Whether views begin anew.';
COMMENT ON COLUMN streamext_internal.seek_request.accept IS 'Whether another source is taken.';
COMMENT ON COLUMN streamext_internal.seek_request.topics IS 'Of the partitions then.';
COMMENT ON COLUMN streamext_internal.seek_request.partitions IS 'Their numbers.';
COMMENT ON COLUMN streamext_internal.seek_request.positions IS 'Where they were.';
COMMENT ON COLUMN streamext_internal.seek_request.target_topics IS 'Of the partitions found.';
COMMENT ON COLUMN streamext_internal.seek_request.target_partitions IS 'Their numbers.';
COMMENT ON COLUMN streamext_internal.seek_request.targets IS 'Where they go on.';
COMMENT ON COLUMN streamext_internal.seek_request."offset" IS 'Of SEEK_OFFSET.';
COMMENT ON COLUMN streamext_internal.retry_request.id IS 'Number.';
COMMENT ON COLUMN streamext_internal.retry_request.stream IS 'Stream.';
COMMENT ON COLUMN streamext_internal.retry_request.shard IS 'Shard that it is for.';
COMMENT ON COLUMN streamext_internal.retry_request.source IS 'What positions mean.';
COMMENT ON COLUMN streamext_internal.retry_request.letters IS 'Dead letters.';
COMMENT ON COLUMN streamext_internal.retry_request.decoded IS 'Those that the stream can decode.';
COMMENT ON COLUMN streamext_internal.round.view IS 'View.';
COMMENT ON COLUMN streamext_internal.round.number IS 'How often it was begun anew.';
COMMENT ON COLUMN streamext_internal.outbox.id IS 'Key, in the order of commits of a target.';
COMMENT ON COLUMN streamext_internal.outbox.target IS 'Foreign table.';
COMMENT ON COLUMN streamext_internal.outbox.at IS 'When the row was inserted.';
COMMENT ON COLUMN streamext_internal.outbox.topic IS 'Where it goes.';
COMMENT ON COLUMN streamext_internal.outbox.key IS 'Of the message.';
COMMENT ON COLUMN streamext_internal.outbox.payload IS 'Of the message.';
COMMENT ON COLUMN streamext_internal.outbox.headers IS 'Of the message, JSON.';
COMMENT ON COLUMN streamext_internal.sink_target.target IS 'Foreign table.';
COMMENT ON COLUMN streamext_internal.sink_target.batch IS 'Number of the set on its way.';
COMMENT ON COLUMN streamext_internal.sink_target.ids IS 'Its rows in the outbox.';
COMMENT ON COLUMN streamext_internal.sink_target.state IS 'See streamext.sinks.';
COMMENT ON COLUMN streamext_internal.sink_target.last_error IS 'See streamext.sinks.';
COMMENT ON COLUMN streamext_internal.sink_target.last_error_at IS 'When it was noted.';
COMMENT ON COLUMN streamext_internal.sink_count.target IS 'Foreign table.';
COMMENT ON COLUMN streamext_internal.sink_count.view IS 'View; 0: INSERT.';
COMMENT ON COLUMN streamext_internal.sink_count.delivered IS 'Rows that have arrived.';
COMMENT ON COLUMN streamext_internal.alert_state.view IS 'Alert.';
COMMENT ON COLUMN streamext_internal.alert_state.key IS 'Of the row.';
COMMENT ON COLUMN streamext_internal.alert_state.state IS 'pending or firing.';
COMMENT ON COLUMN streamext_internal.alert_state.since IS 'When it came into it.';
COMMENT ON COLUMN streamext_internal.alert_state.present IS 'Whether the row is there.';
COMMENT ON COLUMN streamext_internal.alert_state.seen_at IS 'When it was there last.';
COMMENT ON COLUMN streamext_internal.alert_state.last_event IS 'When the last event was.';
COMMENT ON COLUMN streamext_internal.alert_state."row" IS 'The row, as last seen.';
COMMENT ON COLUMN streamext_internal.alert_event.id IS 'Key.';
COMMENT ON COLUMN streamext_internal.alert_event.view IS 'Alert.';
COMMENT ON COLUMN streamext_internal.alert_event.key IS 'Of the row.';
COMMENT ON COLUMN streamext_internal.alert_event.kind IS 'fired, cleared or repeated.';
COMMENT ON COLUMN streamext_internal.alert_event.at IS 'When.';
COMMENT ON COLUMN streamext_internal.alert_event."row" IS 'The row then.';
COMMENT ON COLUMN streamext_internal.alert_view.view IS 'Alert.';
COMMENT ON COLUMN streamext_internal.alert_view.evaluated_at IS 'When it was evaluated last.';
COMMENT ON COLUMN streamext_internal.alert_view.last_error IS 'Why that failed.';
COMMENT ON COLUMN streamext_internal.alert_view.last_error_at IS 'When.';
COMMENT ON COLUMN streamext_internal.flow.written_until IS 'Windows of the inner view that end by then are given.';
COMMENT ON COLUMN streamext.shard_state.partitions IS 'Which share it has.';
COMMENT ON COLUMN streamext.shard_state.state IS 'As in streamext.streams.';
COMMENT ON COLUMN streamext.shard_state.watermark IS 'Its own.';
COMMENT ON COLUMN streamext.shard_state.lag_rows IS 'As in streamext.streams.';
COMMENT ON COLUMN streamext.shard_state.lag_seconds IS 'As in streamext.streams.';
COMMENT ON COLUMN streamext.shard_state.accepted IS 'Records counted there.';
COMMENT ON COLUMN streamext.shard_state.late IS 'Records too late there.';
COMMENT ON COLUMN streamext.shard_state.rejected IS 'Records rejected there.';
COMMENT ON COLUMN streamext.shard_state.sealed_until IS 'End of the last pane in its history.';
