-- Currency conversion: the price of each bid in euros.
CREATE TABLE q1 (auction bigint, bidder bigint, price numeric(23, 3), ts timestamptz, extra text);
CREATE VIEW q1_rows WITH (streamext.continuous, streamext.into = 'q1') AS
SELECT auction, bidder, 0.908 * price AS price, ts, extra FROM event WHERE event_type = 2;

-- The question, over ordinary tables:
SELECT auction, bidder, (0.908 * price)::numeric(23, 3), ts, extra FROM oracle.bid
