-- Highest bid: the bids with the highest price of each 10 seconds.
CREATE VIEW q7_windows WITH (streamext.continuous) AS
SELECT streamext.tumble('10 s', ts) AS start, highest(ROW(auction, bidder, price, channel, url, ts, extra)::bid) AS bids
FROM event WHERE event_type = 2 GROUP BY start;
CREATE VIEW q7 AS SELECT b.auction, b.price, b.bidder, b.ts, b.extra FROM q7_windows, unnest(bids) AS b;

-- The question, over ordinary tables:
SELECT b.auction, b.price, b.bidder, b.ts, b.extra
FROM oracle.bid b
JOIN (SELECT max(price) AS maxprice, streamext.tumble('10 s', ts) AS start FROM oracle.bid GROUP BY start) m
ON b.price = m.maxprice AND streamext.tumble('10 s', b.ts) = m.start
