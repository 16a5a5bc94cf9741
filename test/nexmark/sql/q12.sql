-- Processing time windows: how many bids does a user make in 10 seconds, by the clock? Without event_time a stream goes by
-- the broker's time. It is a stream of its own, because a stream has one time.
CREATE FOREIGN TABLE arrival (
    event_type int, bidder bigint OPTIONS (path 'bid.bidder'), arrived timestamptz OPTIONS (metadata 'timestamp')
) SERVER nexmark OPTIONS (topic '{topic}', format 'json');
CREATE VIEW q12 WITH (streamext.continuous) AS
SELECT bidder, count(*) AS bids, streamext.tumble('10 s', arrived) AS start, streamext.tumble('10 s', arrived) + interval '10 s' AS until
FROM arrival WHERE event_type = 2 GROUP BY bidder, streamext.tumble('10 s', arrived);

-- The question, over ordinary tables:
SELECT bidder, count(*), streamext.tumble('10 s', arrived), streamext.tumble('10 s', arrived) + interval '10 s'
FROM oracle.bid GROUP BY bidder, streamext.tumble('10 s', arrived)
