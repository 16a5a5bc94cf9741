-- Average selling price by seller: of each seller's auctions, with the ten before it in the order of the winning bids.
CREATE VIEW q6 AS
SELECT a.seller, w.ts, avg(w.price) OVER (PARTITION BY a.seller ORDER BY w.ts ROWS BETWEEN 10 PRECEDING AND CURRENT ROW) AS price
FROM winning w JOIN auction a USING (id);

-- The question, over ordinary tables:
SELECT q.seller, q.ts, avg(q.price) OVER (PARTITION BY q.seller ORDER BY q.ts ROWS BETWEEN 10 PRECEDING AND CURRENT ROW)
FROM (SELECT a.id, a.seller, b.price, b.ts, row_number() OVER (PARTITION BY a.id, a.seller ORDER BY b.price DESC, b.ts) AS rownum
      FROM oracle.auction a, oracle.bid b WHERE a.id = b.auction AND b.ts BETWEEN a.ts AND a.expires) q
WHERE q.rownum <= 1
