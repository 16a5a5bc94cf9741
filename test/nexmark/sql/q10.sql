-- Log to files: every bid, by day and minute. Here the last ones are kept in memory; streamext.into with a partitioned table keeps all.
CREATE VIEW q10 WITH (streamext.continuous) AS
SELECT auction, bidder, price, ts, extra, to_char(ts, 'YYYY-MM-DD') AS day, to_char(ts, 'HH24:MI') AS minute
FROM event WHERE event_type = 2;

-- The question, over ordinary tables:
SELECT auction, bidder, price, ts, extra, to_char(ts, 'YYYY-MM-DD'), to_char(ts, 'HH24:MI') FROM oracle.bid
