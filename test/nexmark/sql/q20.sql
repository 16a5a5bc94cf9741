-- Expand bid with auction: bids with their auction, where its category is 10.
CREATE VIEW q20 AS
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.ts AS bid_ts, b.extra AS bid_extra,
       a.item_name, a.description, a.initial_bid, a.reserve, a.ts AS auction_ts, a.expires, a.seller, a.category, a.extra AS auction_extra
FROM bid b JOIN auction a ON b.auction = a.id WHERE a.category = 10;

-- As each bid arrives: those whose auction comes later are not there.
CREATE TABLE q20_arrival (auction bigint, bidder bigint, price bigint, bid_ts timestamptz, auction_ts timestamptz);
CREATE VIEW q20_arrival_rows WITH (streamext.continuous, streamext.into = 'q20_arrival') AS
SELECT e.auction, e.bidder, e.price, e.ts AS bid_ts, a.ts AS auction_ts
FROM event e JOIN auction a ON e.auction = a.id WHERE e.event_type = 2 AND a.category = 10;

-- The question, over ordinary tables:
SELECT b.auction, b.bidder, b.price, b.channel, b.url, b.ts, b.extra,
       a.item_name, a.description, a.initial_bid, a.reserve, a.ts, a.expires, a.seller, a.category, a.extra
FROM oracle.bid b JOIN oracle.auction a ON b.auction = a.id WHERE a.category = 10
