-- User sessions: how many bids did a user make in each session? One ends when none came for 10 seconds.
CREATE VIEW q11 WITH (streamext.continuous) AS
SELECT bidder, count(*) AS bids, streamext.session('10 s', ts) AS start, max(ts) + interval '10 s' AS until
FROM event WHERE event_type = 2 GROUP BY bidder, streamext.session('10 s', ts);

-- The question, over ordinary tables:
SELECT bidder, count(*), min(ts), max(ts) + interval '10 s'
FROM (SELECT *, sum(opens::int) OVER (PARTITION BY bidder ORDER BY ts) AS session
      FROM (SELECT *, (ts - lag(ts) OVER (PARTITION BY bidder ORDER BY ts) <= interval '10 s') IS NOT TRUE AS opens FROM oracle.bid) r) n
GROUP BY bidder, session
