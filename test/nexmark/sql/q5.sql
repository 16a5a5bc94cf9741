-- Hot items: the auctions with the most bids in the last 10 seconds, every 2 seconds.
CREATE VIEW q5_counts WITH (streamext.continuous) AS
SELECT auction, streamext.hop('10 s', '2 s', ts) AS start, count(*) AS num FROM event WHERE event_type = 2 GROUP BY auction, start;
CREATE VIEW q5 AS
SELECT start, auction, num FROM (SELECT *, rank() OVER (PARTITION BY start ORDER BY num DESC) FROM q5_counts) c WHERE rank = 1;

-- The question, over ordinary tables:
SELECT c.start, c.auction, c.num
FROM (SELECT auction, streamext.hop('10 s', '2 s', ts) AS start, count(*) AS num FROM oracle.bid GROUP BY auction, start) c
JOIN (SELECT max(num) AS maxn, start
      FROM (SELECT auction, streamext.hop('10 s', '2 s', ts) AS start, count(*) AS num FROM oracle.bid GROUP BY auction, start) d
      GROUP BY start) m
ON c.start = m.start AND c.num >= m.maxn
