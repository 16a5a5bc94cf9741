-- Find last bid: of each bidder on each auction.
CREATE VIEW q18_last WITH (streamext.continuous) AS
SELECT bidder, auction, streamext.last(ROW(auction, bidder, price, channel, url, ts, extra)::bid, ts) AS bid
FROM event WHERE event_type = 2 GROUP BY bidder, auction;
CREATE VIEW q18 AS
SELECT auction, bidder, (bid).price, (bid).channel, (bid).url, (bid).ts, (bid).extra FROM q18_last;

-- The question, over ordinary tables:
SELECT auction, bidder, price, channel, url, ts, extra
FROM (SELECT *, row_number() OVER (PARTITION BY bidder, auction ORDER BY ts DESC) AS rank_number FROM oracle.bid) q
WHERE rank_number <= 1
