-- Auction top 10 price: the ten highest bids of each auction.
CREATE VIEW q19_top WITH (streamext.continuous) AS
SELECT auction, top10(ROW(auction, bidder, price, channel, url, ts, extra)::bid) AS bids
FROM event WHERE event_type = 2 GROUP BY auction;
CREATE VIEW q19 AS SELECT b.* FROM q19_top, unnest(bids) WITH ORDINALITY AS b;

-- The question, over ordinary tables:
SELECT auction, bidder, price, channel, url, ts, extra, rank_number
FROM (SELECT *, row_number() OVER (PARTITION BY auction ORDER BY price DESC, ts) AS rank_number FROM oracle.bid) q
WHERE rank_number <= 10
