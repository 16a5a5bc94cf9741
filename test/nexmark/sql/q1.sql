-- Currency conversion: the price of each bid in euros.
CREATE VIEW q1 WITH (streamext.continuous) AS
SELECT auction, bidder, (0.908 * price)::numeric(23, 3) AS price, ts, extra FROM event WHERE event_type = 2;

-- The question, over ordinary tables:
SELECT auction, bidder, (0.908 * price)::numeric(23, 3), ts, extra FROM oracle.bid
