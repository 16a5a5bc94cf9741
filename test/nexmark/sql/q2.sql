-- Selection: bids on every 123rd auction.
CREATE VIEW q2 WITH (streamext.continuous) AS
SELECT auction, price FROM event WHERE event_type = 2 AND auction % 123 = 0;

-- The question, over ordinary tables:
SELECT auction, price FROM oracle.bid WHERE auction % 123 = 0
