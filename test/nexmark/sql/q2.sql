-- Selection: bids on every 123rd auction.
CREATE TABLE q2 (auction bigint, price bigint);
CREATE VIEW q2_rows WITH (streamext.continuous, streamext.into = 'q2') AS
SELECT auction, price FROM event WHERE event_type = 2 AND auction % 123 = 0;

-- The question, over ordinary tables:
SELECT auction, price FROM oracle.bid WHERE auction % 123 = 0
