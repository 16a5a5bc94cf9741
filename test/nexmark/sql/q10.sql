-- Log to files: every bid, by day and minute. Here a partition is what a file is there.
CREATE TABLE q10 (auction bigint, bidder bigint, price bigint, ts timestamptz, extra text, day text, minute text) PARTITION BY LIST (day);
CREATE TABLE q10_0630 PARTITION OF q10 FOR VALUES IN ('2024-06-30') PARTITION BY LIST (minute);
CREATE TABLE q10_0630_2359 PARTITION OF q10_0630 FOR VALUES IN ('23:59');
CREATE TABLE q10_0701 PARTITION OF q10 FOR VALUES IN ('2024-07-01') PARTITION BY LIST (minute);
CREATE TABLE q10_0701_0000 PARTITION OF q10_0701 FOR VALUES IN ('00:00');
CREATE TABLE q10_later PARTITION OF q10_0701 DEFAULT;
CREATE VIEW q10_rows WITH (streamext.continuous, streamext.into = 'q10') AS
SELECT auction, bidder, price, ts, extra, to_char(ts, 'YYYY-MM-DD') AS day, to_char(ts, 'HH24:MI') AS minute
FROM event WHERE event_type = 2;

-- The question, over ordinary tables:
SELECT auction, bidder, price, ts, extra, to_char(ts, 'YYYY-MM-DD'), to_char(ts, 'HH24:MI') FROM oracle.bid
