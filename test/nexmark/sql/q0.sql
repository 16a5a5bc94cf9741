-- Pass through: every bid.
CREATE VIEW q0 WITH (streamext.continuous) AS
SELECT auction, bidder, price, ts, extra FROM event WHERE event_type = 2;

-- The question, over ordinary tables:
SELECT auction, bidder, price, ts, extra FROM oracle.bid
