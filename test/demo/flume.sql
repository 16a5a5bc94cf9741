-- make demo CHANNELS=all: a tier for Flume agents. psql sets :listen.

CREATE SERVER tier FOREIGN DATA WRAPPER flume OPTIONS (listen :'listen');
CREATE FOREIGN TABLE log_sensors (
    device text, site text, ts timestamptz, temperature float8, humidity float8
) SERVER tier OPTIONS (event_time 'ts', watermark_delay '5 s');

CREATE VIEW log_device_total WITH (streamext.continuous) AS
SELECT device, count(*) AS n, sum(temperature) AS total, max(temperature) AS peak FROM log_sensors GROUP BY device;
