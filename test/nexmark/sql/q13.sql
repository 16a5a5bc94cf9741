-- Bounded side input join: each bid with a value that a table has for its auction.
CREATE TABLE side_input (key bigint PRIMARY KEY, value text);
INSERT INTO side_input SELECT i, md5(i::text) FROM generate_series(0, 9999) i WHERE i % 3 <> 0;
ANALYZE side_input;
CREATE TABLE q13 (auction bigint, bidder bigint, price bigint, ts timestamptz, value text);
CREATE VIEW q13_rows WITH (streamext.continuous, streamext.into = 'q13') AS
SELECT e.auction, e.bidder, e.price, e.ts, s.value FROM event e JOIN side_input s ON e.auction % 10000 = s.key
WHERE e.event_type = 2;

-- The question, over ordinary tables:
SELECT b.auction, b.bidder, b.price, b.ts, s.value FROM oracle.bid b JOIN side_input s ON b.auction % 10000 = s.key
