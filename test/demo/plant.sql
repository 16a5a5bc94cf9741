-- What the demo creates: three streams, and views over them. psql sets :brokers, :uri, :listen and :token.

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

-- Those at the gates POST to PostgreSQL itself, as the role gate.
CREATE ROLE gate;
CREATE SERVER web FOREIGN DATA WRAPPER http OPTIONS (listen :'listen');
CREATE USER MAPPING FOR gate SERVER web OPTIONS (token :'token');
CREATE FOREIGN TABLE gate_sensors (
    device text, site text, ts timestamptz, temperature float8, humidity float8
) SERVER web OPTIONS (path '/sensors', format 'json', event_time 'ts', watermark_delay '5 s');
GRANT INSERT ON gate_sensors TO gate;

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

CREATE VIEW gate_device_total WITH (streamext.continuous) AS
SELECT device, count(*) AS n, sum(temperature) AS total, max(temperature) AS peak FROM gate_sensors GROUP BY device;
GRANT SELECT ON gate_device_total TO gate; -- GET /views/public.gate_device_total, and the live page

-- An ordinary table, joined when the view is read.
CREATE TABLE devices (device text PRIMARY KEY, line text NOT NULL, max_temperature float8 NOT NULL);
INSERT INTO devices
SELECT format('device-%s', to_char(i, 'FM0000')), format('line %s', i % 4 + 1), 25 + i % 5
FROM generate_series(0, :devices - 1) AS i;

CREATE VIEW line_load AS
SELECT line, count(*) AS devices, sum(n) AS n, count(*) FILTER (WHERE peak > max_temperature) AS too_hot
FROM device_total JOIN devices USING (device)
GROUP BY line;
