-- Streams: options and their errors, what a stream may be, INSERT into local streams, the catalogue.
CREATE EXTENSION streamext;
SET timezone = 'UTC';
SET datestyle = 'ISO, MDY';
SET intervalstyle = 'postgres';
SELECT streamext.set_clock('2024-05-01 12:00:00+00');

--
-- Options of servers and user mappings
--
CREATE SERVER here FOREIGN DATA WRAPPER local;
CREATE SERVER plant FOREIGN DATA WRAPPER kafka;
CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (broker 'a:9092');
CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers '');
CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers 'a:9092', security_protocol 'tls');
CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers 'a:9092', security_protocol 'sasl_ssl');
CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers 'a:9092', sasl_mechanism 'GSSAPI');
CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri 'http://127.0.0.1');
CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri 'tcp://me:secret@127.0.0.1');
CREATE SERVER bad FOREIGN DATA WRAPPER local OPTIONS (uri 'tcp://127.0.0.1');
-- nothing listens there
CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1');
ALTER SERVER plant OPTIONS (DROP brokers);
CREATE USER MAPPING FOR CURRENT_USER SERVER plant OPTIONS (password 'x');
CREATE USER MAPPING FOR CURRENT_USER SERVER plant OPTIONS (sasl_password 'x', sasl_password_file 'y');
CREATE USER MAPPING FOR CURRENT_USER SERVER plant OPTIONS (sasl_password_file '../y');
CREATE USER MAPPING FOR CURRENT_USER SERVER plant OPTIONS (sasl_password_file '/etc/passwd');
CREATE USER MAPPING FOR CURRENT_USER SERVER plant OPTIONS (sasl_password E'secret\n');
ALTER FOREIGN DATA WRAPPER kafka OPTIONS (ADD x 'y');

-- files of the server are for those who may read them
CREATE ROLE regress_streamext_app;
GRANT USAGE ON FOREIGN DATA WRAPPER kafka TO regress_streamext_app;
GRANT USAGE ON FOREIGN SERVER here TO regress_streamext_app;
SET ROLE regress_streamext_app;
CREATE SERVER mine FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1', ssl_ca_location '/etc/ssl/ca.pem');
CREATE SERVER mine FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:1');
CREATE USER MAPPING FOR CURRENT_USER SERVER mine OPTIONS (sasl_password_file 'app.secret');
DROP SERVER mine;
SELECT streamext.set_clock(NULL);
RESET ROLE;

--
-- Options of streams
--
CREATE FOREIGN TABLE s (a int) SERVER plant;
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', topics 'a,b');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a b');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topics 'a, b, a');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', format 'xml');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', journal 'os');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', workers '17');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', start 'now');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', start '2024-02-30');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', watermark_delay '1 month');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', watermark_delay '-1 s');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', watermark_delay 'soon');
CREATE FOREIGN TABLE s (a int) SERVER here OPTIONS (topic 'a');
CREATE FOREIGN TABLE s (a int) SERVER here OPTIONS (buffer_size '1000001');
CREATE FOREIGN TABLE s (a int) SERVER here OPTIONS (buffer_size '1e3');
CREATE FOREIGN TABLE s (a int) SERVER here OPTIONS (journal 'none');
CREATE FOREIGN TABLE s (a int) SERVER here OPTIONS (on_error 'ignore');
-- csv
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', delimiter ';');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', format 'csv', force_null 'a');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', format 'csv', delimiter 'ä');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', format 'csv', delimiter E'\n');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', format 'csv', quote '');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', format 'csv', delimiter '"');
CREATE FOREIGN TABLE s (a int) SERVER plant OPTIONS (topic 'a', format 'csv', null 'a,b');
CREATE FOREIGN TABLE s (a int OPTIONS (path 'b')) SERVER plant OPTIONS (topic 'a', format 'csv');
CREATE FOREIGN TABLE s (a int OPTIONS (path '0')) SERVER plant OPTIONS (topic 'a', format 'csv');
CREATE FOREIGN TABLE s (a int OPTIONS (path '2'), b int) SERVER plant OPTIONS (topic 'a', format 'csv', delimiter E'\t', quote '''', escape E'\\', null '');
ALTER FOREIGN TABLE s OPTIONS (SET format 'json');
ALTER FOREIGN TABLE s RENAME COLUMN b TO c;
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 's'::regclass;
SELECT attname, attfdwoptions FROM pg_attribute WHERE attrelid = 's'::regclass AND attnum > 0;
DROP FOREIGN TABLE s;
-- columns
CREATE FOREIGN TABLE s (a int OPTIONS (path 'b..c')) SERVER plant OPTIONS (topic 'a');
CREATE FOREIGN TABLE s (a int OPTIONS (metadata 'qos')) SERVER plant OPTIONS (topic 'a');
CREATE FOREIGN TABLE s (a text OPTIONS (metadata 'offset')) SERVER plant OPTIONS (topic 'a');
CREATE FOREIGN TABLE s (a int OPTIONS (metadata 'partition', path 'a')) SERVER plant OPTIONS (topic 'a');
CREATE FOREIGN TABLE s (a int OPTIONS (metadata 'offset')) SERVER here;
-- columns and options together
CREATE FOREIGN TABLE s (a int) SERVER here OPTIONS (event_time 'ts');
CREATE FOREIGN TABLE s (ts timestamp) SERVER here OPTIONS (event_time 'ts');
CREATE FOREIGN TABLE s (ts timestamptz OPTIONS (metadata 'timestamp'), a text OPTIONS (path 'x')) SERVER plant OPTIONS (topic 'a', event_time 'ts', format 'text');
CREATE FOREIGN TABLE s (a bytea OPTIONS (metadata 'key')) SERVER plant OPTIONS (topic 'a', format 'raw');
CREATE FOREIGN TABLE s (a bytea, b bytea) SERVER plant OPTIONS (topic 'a', format 'raw');
ALTER FOREIGN TABLE s ALTER COLUMN b OPTIONS (metadata 'key');
DROP FOREIGN TABLE s;
CREATE FOREIGN TABLE s (a text) SERVER plant OPTIONS (topic 'a', format 'raw');
CREATE FOREIGN TABLE s (a int, b int GENERATED ALWAYS AS (a + 1) STORED) SERVER here;
CREATE TABLE parent (a int) PARTITION BY LIST (a);
CREATE FOREIGN TABLE s PARTITION OF parent DEFAULT SERVER here;
CREATE FOREIGN TABLE s (a int) SERVER here;
ALTER TABLE parent ATTACH PARTITION s DEFAULT;
DROP TABLE parent;
DROP FOREIGN TABLE s;
-- nothing is left of the failures
SELECT * FROM streamext.streams;

--
-- A local stream
--
CREATE FOREIGN TABLE readings (device text NOT NULL, ts timestamptz, value float8)
SERVER here OPTIONS (event_time 'ts', watermark_delay '5 s');
INSERT INTO readings VALUES ('a', '2024-05-01 11:59:00+00', 1), ('b', '2024-05-01 11:59:01+00', 2);
BEGIN;
INSERT INTO readings VALUES ('c', '2024-05-01 11:59:02+00', 3);
ROLLBACK;
BEGIN;
INSERT INTO readings VALUES ('d', '2024-05-01 11:59:03+00', 4);
SAVEPOINT here;
INSERT INTO readings VALUES ('e', '2024-05-01 11:59:04+00', 5);
ROLLBACK TO here;
INSERT INTO readings VALUES ('f', '2024-05-01 11:59:05+00', 6);
COMMIT;
COPY readings FROM stdin WITH (FORMAT csv);
g,2024-05-01 11:59:06+00,7
\.
SELECT streamext.flush('readings');
SELECT * FROM readings;
SELECT stream, connector, format, state, workers, rows_in, watermark, lag_rows, lag_seconds, rejected, last_error
FROM streamext.streams;
SELECT stream, topic, partition, shard, lag_rows, rows_in, max_event_time FROM streamext.stream_partitions;
SELECT stream, shard, state, pid IS NOT NULL AS has_process FROM streamext.workers;

-- rejected records
INSERT INTO readings VALUES ('h', NULL, 8), ('i', 'infinity', 9), ('j', '2024-05-01 13:00:01+00', 10);
SELECT streamext.flush('readings');
SELECT stream, view, topic, partition, sqlstate, reason, convert_from(payload, 'UTF8') AS payload FROM streamext.dead_letters ORDER BY id;
SELECT rows_in, rejected FROM streamext.streams;
-- other writes
UPDATE readings SET value = 0;
DELETE FROM readings;
TRUNCATE readings;
INSERT INTO readings VALUES ('k', '2024-05-01 11:59:10+00', 11) RETURNING device;

--
-- Control
--
SELECT streamext.pause('readings');
SELECT state FROM streamext.streams;
SELECT streamext.flush('readings');
SELECT streamext.resume('readings');
SELECT streamext.flush('readings');
SELECT state FROM streamext.streams;
CREATE TABLE ordinary (a int);
SELECT streamext.flush('ordinary');
SELECT streamext.pause('ordinary');
SELECT streamext.view_positions('ordinary');
SELECT streamext.flush('nowhere');
BEGIN;
CREATE FOREIGN TABLE young (a int) SERVER here;
SELECT streamext.flush('young');
ROLLBACK;

--
-- ALTER
--
ALTER FOREIGN TABLE readings ADD COLUMN note text;
ALTER FOREIGN TABLE readings RENAME COLUMN ts TO at;
SELECT ftoptions FROM pg_foreign_table WHERE ftrelid = 'readings'::regclass;
INSERT INTO readings VALUES ('l', '2024-05-01 11:59:11+00', 12, 'noted');
SELECT streamext.flush('readings');
SELECT * FROM readings WHERE device = 'l';
ALTER FOREIGN TABLE readings OPTIONS (SET event_time 'note');
ALTER FOREIGN TABLE readings DROP COLUMN at;
ALTER FOREIGN TABLE readings ALTER COLUMN at TYPE text;
ALTER FOREIGN TABLE readings OPTIONS (ADD colour 'red');

-- RENAME COLUMN keeps where the value comes from
CREATE FOREIGN TABLE far (a int, "b.c" int, d int OPTIONS (path 'e.f'), g int OPTIONS (metadata 'partition'))
SERVER plant OPTIONS (topic 'far');
ALTER FOREIGN TABLE far RENAME COLUMN a TO a2;
ALTER FOREIGN TABLE far RENAME COLUMN a2 TO a3;
ALTER FOREIGN TABLE far RENAME COLUMN "b.c" TO b;
ALTER FOREIGN TABLE far RENAME COLUMN d TO d2;
ALTER FOREIGN TABLE far RENAME COLUMN g TO g2;
SELECT attname, attfdwoptions FROM pg_attribute WHERE attrelid = 'far'::regclass AND attnum > 0 ORDER BY attnum;
INSERT INTO far VALUES (1);
DROP FOREIGN TABLE far;

--
-- Rights
--
SET ROLE regress_streamext_app;
SELECT * FROM readings;
SELECT stream FROM streamext.streams;
SELECT stream FROM streamext.workers;
SELECT stream FROM streamext.dead_letters;
SELECT * FROM streamext_internal.dead_letter;
SELECT streamext.flush('readings');
RESET ROLE;
GRANT SELECT ON readings TO regress_streamext_app;
SET ROLE regress_streamext_app;
SELECT stream FROM streamext.streams;
SELECT count(*) FROM streamext.dead_letters;
SELECT streamext.flush('readings');
SELECT streamext.pause('readings');
INSERT INTO readings VALUES ('m');
RESET ROLE;
REVOKE SELECT ON readings FROM regress_streamext_app;
GRANT pg_monitor TO regress_streamext_app;
SET ROLE regress_streamext_app;
SELECT stream FROM streamext.streams;
SELECT count(*) FROM streamext.dead_letters;
RESET ROLE;

DROP FOREIGN TABLE readings;
SELECT count(*) FROM streamext.streams;
DROP TABLE ordinary;
DROP SERVER here, plant;
DROP OWNED BY regress_streamext_app;
DROP ROLE regress_streamext_app;
SELECT streamext.set_clock(NULL);
DROP EXTENSION streamext;
