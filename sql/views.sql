-- Continuous views: CREATE, ALTER and what is refused; answers compared with the view's own query over an ordinary table.
CREATE EXTENSION streamext;
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
SET intervalstyle = 'postgres';
SELECT streamext.set_clock('2024-05-01 12:00:00+00');
CREATE SERVER here FOREIGN DATA WRAPPER local;
CREATE FOREIGN TABLE readings (device text, ts timestamptz, value float8, note text)
SERVER here OPTIONS (event_time 'ts', watermark_delay '5 s', buffer_size '0');
-- the oracle: the same rows in a table
CREATE TABLE oracle (device text, ts timestamptz, value float8, note text);

-- rows of `actual` and `expected` that the other does not have
CREATE FUNCTION differ(actual text, expected text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY EXECUTE format('SELECT ''extra '' || e::text FROM (%1$s EXCEPT ALL %2$s) e UNION ALL SELECT ''missing '' || m::text FROM (%2$s EXCEPT ALL %1$s) m ORDER BY 1', actual, expected);
END $$;

--
-- CREATE VIEW
--
CREATE VIEW tumbling WITH (streamext.continuous) AS
SELECT device, streamext.tumble('10 s', ts) AS window_start, count(*) AS n, sum(value) AS total, min(value) AS low, max(note) AS note
FROM readings GROUP BY device, window_start;
CREATE VIEW hopping WITH (streamext.continuous = true, streamext.lateness = '1 min') AS
SELECT device, streamext.hop('1 min', '10 s', ts) AS window_start, count(*) AS n, avg(value) AS mean
FROM readings WHERE value > 0 GROUP BY device, window_start HAVING count(*) > 1;
CREATE VIEW truncated WITH (streamext.continuous) AS
SELECT date_trunc('minute', ts) AS minute, count(DISTINCT device) AS devices, array_agg(value ORDER BY value) AS all_values
FROM readings GROUP BY minute;
CREATE VIEW sliding WITH (streamext.continuous) AS
SELECT device, count(*) FILTER (WHERE value > 2) AS n, count(*) AS everything FROM readings WHERE ts > now() - interval '1 minute' GROUP BY device;
CREATE VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(value) AS total FROM readings;
CREATE VIEW ordinary AS SELECT device, count(*) AS n FROM readings GROUP BY device;

SELECT relname, reloptions FROM pg_class WHERE relname IN ('tumbling', 'hopping', 'ordinary') ORDER BY relname;
-- the rule is the user's own query
SELECT pg_get_viewdef('tumbling') ~ 'streamext.tumble.*count.*GROUP BY.*device' AS same;
SELECT view, stream, window_kind, window_size, window_slide, sliding, groups, accepted, late, rejected, timezone, options, last_error
FROM streamext.continuous_views ORDER BY view::text;
-- nothing yet: one row without GROUP BY, none with it
TABLE total;
SELECT count(*) FROM tumbling;

INSERT INTO oracle SELECT 'd' || i % 3, '2024-05-01 11:58:00+00'::timestamptz + i * interval '1.5 s', i % 7, 'note ' || i % 5 FROM generate_series(0, 79) AS i;
INSERT INTO readings TABLE oracle;
SELECT streamext.flush('readings');

SELECT differ('TABLE tumbling', $$SELECT device, streamext.tumble('10 s', ts), count(*), sum(value), min(value), max(note) FROM oracle GROUP BY 1, 2$$);
SELECT differ('TABLE hopping', $$SELECT device, streamext.hop('1 min', '10 s', ts) AS w, count(*), avg(value) FROM oracle WHERE value > 0 GROUP BY 1, 2 HAVING count(*) > 1$$);
SELECT differ('TABLE truncated', $$SELECT date_trunc('minute', ts), count(DISTINCT device), array_agg(value ORDER BY value) FROM oracle GROUP BY 1$$);
SELECT differ('TABLE sliding', $$SELECT device, count(*) FILTER (WHERE value > 2), count(*) FROM oracle WHERE ts > '2024-05-01 11:59:00+00' GROUP BY 1$$);
TABLE total;
SELECT count(*) FROM tumbling;
-- beside others: joins, subqueries, prepared statements
SELECT t.device, t.n, s.n FROM tumbling t JOIN sliding s USING (device) WHERE t.window_start = '2024-05-01 11:59:00+00' ORDER BY 1;
SELECT (SELECT n FROM total) AS n, (SELECT max(low) FROM tumbling) AS low;
PREPARE one(text) AS SELECT count(*) FROM tumbling WHERE device = $1;
EXECUTE one('d1');
EXPLAIN (COSTS OFF) SELECT * FROM tumbling WHERE device = 'd1' AND window_start = '2024-05-01 11:59:00+00';
SELECT view, state, groups > 0 AS has_groups, open_windows > 0 AS has_windows, accepted, late, rejected FROM streamext.continuous_views ORDER BY view::text;
SELECT partition, next_offset > 0 AS counted FROM streamext.view_positions('tumbling');

-- late rows, and a row on which a view's expression raises
CREATE VIEW dividing WITH (streamext.continuous) AS SELECT sum(1 / value::int) AS inverse, count(*) AS n FROM readings;
INSERT INTO readings VALUES ('d0', '2024-05-01 11:57:00+00', 100, 'late'), ('d0', '2024-05-01 11:59:59+00', 0, 'zero');
SELECT streamext.flush('readings');
SELECT view, accepted, late, rejected FROM streamext.continuous_views ORDER BY view::text;
TABLE dividing;
SELECT view, sqlstate, reason, payload IS NOT NULL AS has_payload FROM streamext.dead_letters ORDER BY id;
SELECT max(total) FROM tumbling;

-- sliding moves with the clock
SELECT streamext.set_clock('2024-05-01 12:00:30+00');
SELECT * FROM sliding ORDER BY device;
SELECT streamext.set_clock('2024-05-01 12:05:00+00');
SELECT * FROM sliding;
SELECT streamext.set_clock('2024-05-01 12:00:00+00');

--
-- Errors of CREATE VIEW
--
CREATE VIEW v WITH (streamext.continous) AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.continuous, streamext.colour = 'red') AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.continuous = 'perhaps') AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.continuous, streamext.continuous = false) AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.retention = '1 day') AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.continuous = false, streamext.retention = '1 day') AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.continuous, streamext.retention = '-1 day') AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.continuous, streamext.lateness = '1 month') AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.continuous, streamext.max_groups = 'many') AS SELECT count(*) FROM readings;
CREATE VIEW v WITH (streamext.continuous, streamext.timezone = 'Mars/Phobos') AS SELECT count(*) FROM readings;
CREATE TEMP VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM readings;
CREATE RECURSIVE VIEW v (n) WITH (streamext.continuous) AS SELECT 1 UNION ALL SELECT n + 1 FROM v;
CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM oracle;
CREATE VIEW v WITH (streamext.continuous) AS SELECT device FROM readings ORDER BY device;
CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM readings RIGHT JOIN oracle USING (device);
CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM readings WHERE random() > 0.5;
CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM readings WHERE device = current_user;
CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM readings GROUP BY (SELECT 1);
CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM total;
CREATE VIEW v WITH (streamext.continuous) AS SELECT streamext.tumble('1 month', ts) AS w, count(*) FROM readings GROUP BY w;
CREATE VIEW v WITH (streamext.continuous, streamext.retention = '1 h') AS SELECT device, date_trunc('minute', ts), count(*) FROM readings GROUP BY CUBE (1, 2);
CREATE VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM readings UNION ALL SELECT count(*) FROM readings;
CREATE TABLE t (a int) WITH (streamext.continuous);
-- hardly meant
CREATE VIEW v WITH (streamext.continuous) AS SELECT date_trunc('minute', ts) AS ts, count(*) FROM readings GROUP BY ts;
DROP VIEW v;
SELECT streamext_internal.view_rows('tumbling'::regclass);
SELECT * FROM streamext_internal.view_rows('tumbling'::regclass) AS r(a int);

--
-- OR REPLACE
--
CREATE OR REPLACE VIEW total AS SELECT count(*) AS n, sum(value) AS total FROM readings;
CREATE OR REPLACE VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(value) AS total, max(value) AS peak FROM readings WHERE value > 1;
-- counts again what came since the view was made
INSERT INTO readings VALUES ('d0', '2024-05-01 11:59:59+00', 1), ('d0', '2024-05-01 11:59:59+00', 2);
SELECT streamext.flush('readings');
TABLE total;
CREATE OR REPLACE VIEW total WITH (streamext.continuous = false) AS SELECT count(*) AS n, sum(value) AS total, max(value) AS peak FROM readings;
SELECT reloptions FROM pg_class WHERE relname = 'total';
SELECT view FROM streamext.continuous_views ORDER BY view::text;
-- the worker has let it go: made continuous again it begins at the journal's end
SELECT streamext.flush('readings');
CREATE OR REPLACE VIEW total WITH (streamext.continuous) AS SELECT count(*) AS n, sum(value) AS total, max(value) AS peak FROM readings;
CREATE OR REPLACE VIEW total WITH ("streamext.continuous" = 'true', "streamext.timezone" = 'Asia/Tokyo', security_barrier = true) AS
SELECT count(*) AS n, sum(value) AS total, max(value) AS peak FROM readings;
SELECT reloptions FROM pg_class WHERE relname = 'total';

--
-- ALTER
--
ALTER VIEW total SET (security_barrier = false);
ALTER VIEW total SET (streamext.retention = '1 day', streamext.max_groups = 1000);
SELECT reloptions FROM pg_class WHERE relname = 'total';
ALTER VIEW total RESET (streamext.retention, security_barrier);
ALTER TABLE total SET (streamext.lateness = '1 s');
ALTER VIEW total SET (streamext.continuous);
SELECT reloptions FROM pg_class WHERE relname = 'total';
ALTER VIEW total SET (streamext.continuous = false);
ALTER VIEW total RESET (streamext.continuous);
ALTER VIEW total SET (streamext.step = '1 s');
ALTER VIEW total SET (streamext.timezone = 'UTC');
ALTER VIEW total SET (streamext.colour = 'red');
ALTER VIEW total SET (colour = 'red');
ALTER VIEW total SET (streamext.retention = 'long');
ALTER VIEW ordinary SET (streamext.continuous);
ALTER VIEW ordinary SET (security_barrier);
ALTER TABLE oracle SET (streamext.continuous);
SELECT reloptions FROM pg_class WHERE relname = 'total';
ALTER VIEW total RENAME COLUMN peak TO top;
ALTER VIEW total RENAME TO totals;
INSERT INTO readings VALUES ('d0', '2024-05-01 11:59:59+00', 2);
SELECT streamext.flush('readings');
SELECT n, top FROM totals;
CREATE RULE r AS ON INSERT TO totals DO INSTEAD NOTHING;
CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER g INSTEAD OF INSERT ON totals FOR EACH ROW EXECUTE FUNCTION f();
SELECT n FROM totals FOR UPDATE;
INSERT INTO totals VALUES (1);

-- the stream under continuous views
ALTER FOREIGN TABLE readings OPTIONS (DROP event_time);
ALTER FOREIGN TABLE readings OPTIONS (SET watermark_delay '10 s');
ALTER FOREIGN TABLE readings ADD COLUMN extra int;
\set VERBOSITY terse
ALTER FOREIGN TABLE readings DROP COLUMN value;
\set VERBOSITY default
ALTER FOREIGN TABLE readings RENAME COLUMN ts TO at;
INSERT INTO readings VALUES ('d9', '2024-05-01 12:00:01+00', 3);
SELECT streamext.flush('readings');
SELECT device, window_start, n FROM tumbling WHERE device = 'd9';
\set VERBOSITY terse
DROP FOREIGN TABLE readings;
\set VERBOSITY default

--
-- Rights
--
CREATE ROLE regress_streamext_reader;
GRANT SELECT ON tumbling TO regress_streamext_reader;
GRANT CREATE ON SCHEMA public TO regress_streamext_reader;
SET ROLE regress_streamext_reader;
SELECT count(*) > 0 FROM tumbling;
SELECT count(*) FROM hopping;
SELECT view FROM streamext.continuous_views ORDER BY view::text;
SELECT count(*) > 0 FROM streamext.view_positions('hopping');
CREATE VIEW mine WITH (streamext.continuous) AS SELECT count(*) FROM readings;
RESET ROLE;
GRANT SELECT (device) ON readings TO regress_streamext_reader;
SET ROLE regress_streamext_reader;
CREATE VIEW mine WITH (streamext.continuous) AS SELECT device, count(*) FROM readings GROUP BY device;
CREATE OR REPLACE VIEW tumbling WITH (streamext.continuous) AS SELECT device, count(*) FROM readings GROUP BY device;
ALTER VIEW tumbling SET (streamext.retention = '1 day');
TABLE mine;
RESET ROLE;

-- rows that go out: the payload is made of some of the columns, and INSERT makes one at commit
CREATE SERVER broker FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1');
CREATE FOREIGN TABLE out (k text OPTIONS (metadata 'key'), device text, n bigint) SERVER broker OPTIONS (topic 'out');
CREATE VIEW going WITH (streamext.continuous, streamext.into = 'out') AS
    SELECT device, length(device)::bigint AS n FROM readings;
DROP VIEW going;
BEGIN;
INSERT INTO out VALUES ('a', 'd1', 1);
ROLLBACK;
DROP FOREIGN TABLE out;
DROP SERVER broker;

-- materialised, and dropped
CREATE MATERIALIZED VIEW kept AS SELECT device, n FROM tumbling WHERE device = 'd9';
TABLE kept;
DROP VIEW hopping;
SELECT view FROM streamext.continuous_views ORDER BY view::text;
SET client_min_messages = warning;
DROP OWNED BY regress_streamext_reader;
DROP FOREIGN TABLE readings CASCADE;
SELECT view FROM streamext.continuous_views;
SELECT stream FROM streamext.streams;
DROP ROLE regress_streamext_reader;
DROP TABLE oracle;
DROP FUNCTION differ, f;
DROP SERVER here;
SELECT streamext.set_clock(NULL);
DROP EXTENSION streamext;
