-- Pass through: every bid.
CREATE TABLE q0 (auction bigint, bidder bigint, price bigint, ts timestamptz, extra text);
CREATE VIEW q0_rows WITH (streamext.continuous, streamext.into = 'q0') AS
SELECT auction, bidder, price, ts, extra FROM event WHERE event_type = 2;

-- The question, over ordinary tables:
SELECT auction, bidder, price, ts, extra FROM oracle.bid
