-- make demo CHANNELS=all: a firehose of server-sent events, which goes on where the last record was. psql sets :url.

CREATE SERVER firehose FOREIGN DATA WRAPPER feed OPTIONS (url :'url', framing 'sse', resume 'last_event_id');
CREATE FOREIGN TABLE feed_sensors (
    device text, site text, ts timestamptz, temperature float8, humidity float8, id text OPTIONS (metadata 'id')
) SERVER firehose OPTIONS (format 'json', event_time 'ts', watermark_delay '5 s');

CREATE VIEW feed_device_total WITH (streamext.continuous) AS
SELECT device, count(*) AS n, sum(temperature) AS total, max(temperature) AS peak FROM feed_sensors GROUP BY device;
