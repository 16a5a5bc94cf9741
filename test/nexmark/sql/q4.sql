-- Average price for a category: of the winning bids of all its auctions.
CREATE VIEW q4 AS
SELECT a.category, avg(w.price) AS final FROM winning w JOIN auction a USING (id) GROUP BY a.category;

-- The question, over ordinary tables:
SELECT q.category, avg(q.final)
FROM (SELECT max(b.price) AS final, a.category FROM oracle.auction a, oracle.bid b
      WHERE a.id = b.auction AND b.ts BETWEEN a.ts AND a.expires GROUP BY a.id, a.category) q
GROUP BY q.category
