-- Winning bids: the highest bid of each auction, with the auction.
CREATE VIEW q9 AS
SELECT a.*, w.auction, w.bidder, w.price, w.ts AS bid_ts, w.extra AS bid_extra FROM winning w JOIN auction a USING (id);

-- The question, over ordinary tables:
SELECT id, item_name, description, initial_bid, reserve, ts, expires, seller, category, extra, auction, bidder, price, bid_ts, bid_extra
FROM (SELECT a.*, b.auction, b.bidder, b.price, b.ts AS bid_ts, b.extra AS bid_extra,
             row_number() OVER (PARTITION BY a.id ORDER BY b.price DESC, b.ts) AS rownum
      FROM oracle.auction a, oracle.bid b WHERE a.id = b.auction AND b.ts BETWEEN a.ts AND a.expires) q
WHERE rownum <= 1
