-- What the demo creates: two streams, and views over them. psql sets :brokers and :uri.

CREATE EXTENSION streamext;

-- Sensors that publish to Kafka …
CREATE SERVER plant FOREIGN DATA WRAPPER kafka OPTIONS (brokers :'brokers');
CREATE FOREIGN TABLE sensors (
    device text, site text, ts timestamptz, temperature float8, humidity float8
) SERVER plant OPTIONS (topic 'sensors', format 'json', event_time 'ts', watermark_delay '5 s');

-- … and others to MQTT, whose site is a level of the topic plant/<site>/<device>.
CREATE SERVER floor FOREIGN DATA WRAPPER mqtt OPTIONS (uri :'uri');
CREATE FOREIGN TABLE floor_sensors (
    device text, site text OPTIONS (metadata 'topic_level 2'), ts timestamptz, temperature float8, humidity float8
) SERVER floor OPTIONS (topic 'plant/+/+', format 'json', event_time 'ts', watermark_delay '5 s');

-- Each device in windows of ten seconds.
CREATE VIEW device_10s WITH (streamext.continuous) AS
SELECT device, streamext.tumble('10 s', ts) AS window_start,
       count(*) AS n, sum(temperature) AS total, avg(temperature) AS mean, max(temperature) AS peak
FROM sensors
GROUP BY device, window_start;

-- Each site over the last minute, anew every ten seconds.
CREATE VIEW site_minute WITH (streamext.continuous) AS
SELECT site, streamext.hop('1 min', '10 s', ts) AS window_start,
       count(*) AS n, avg(temperature) AS mean, count(*) FILTER (WHERE humidity > 80) AS damp
FROM sensors
GROUP BY site, window_start;

-- Each site of the floor over the minute that ends now.
CREATE VIEW floor_now WITH (streamext.continuous) AS
SELECT site, count(*) AS n, avg(temperature) AS mean, stddev(temperature) AS spread, min(humidity) AS driest
FROM floor_sensors
WHERE ts > now() - interval '1 minute'
GROUP BY site;

-- Each device since the beginning.
CREATE VIEW device_total WITH (streamext.continuous) AS
SELECT device, count(*) AS n, sum(temperature) AS total, max(temperature) AS peak FROM sensors GROUP BY device;

CREATE VIEW floor_device_total WITH (streamext.continuous) AS
SELECT device, count(*) AS n, sum(temperature) AS total, max(temperature) AS peak FROM floor_sensors GROUP BY device;

-- An ordinary table, joined when the view is read.
CREATE TABLE devices (device text PRIMARY KEY, line text NOT NULL, max_temperature float8 NOT NULL);
INSERT INTO devices
SELECT format('device-%s', to_char(i, 'FM0000')), format('line %s', i % 4 + 1), 25 + i % 5
FROM generate_series(0, :devices - 1) AS i;

CREATE VIEW line_load AS
SELECT line, count(*) AS devices, sum(n) AS n, count(*) FILTER (WHERE peak > max_temperature) AS too_hot
FROM device_total JOIN devices USING (device)
GROUP BY line;
