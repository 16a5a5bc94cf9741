-- What the queries share: the stream, tables that it fills, aggregates. {brokers} and {topic} are put in by the test.

CREATE SERVER nexmark FOREIGN DATA WRAPPER kafka OPTIONS (brokers '{brokers}');

-- One topic, as in Flink's version. The fields of the other kinds of event are NULL.
CREATE FOREIGN TABLE event (
    event_type int NOT NULL,                                    -- 0 person, 1 auction, 2 bid
    ts timestamptz OPTIONS (path 'dateTime') NOT NULL,
    person_id bigint OPTIONS (path 'person.id'),
    name text OPTIONS (path 'person.name'),
    email text OPTIONS (path 'person.emailAddress'),
    credit_card text OPTIONS (path 'person.creditCard'),
    city text OPTIONS (path 'person.city'),
    state text OPTIONS (path 'person.state'),
    person_extra text OPTIONS (path 'person.extra'),
    auction_id bigint OPTIONS (path 'auction.id'),
    item_name text OPTIONS (path 'auction.itemName'),
    description text OPTIONS (path 'auction.description'),
    initial_bid bigint OPTIONS (path 'auction.initialBid'),
    reserve bigint OPTIONS (path 'auction.reserve'),
    expires timestamptz OPTIONS (path 'auction.expires'),
    seller bigint OPTIONS (path 'auction.seller'),
    category int OPTIONS (path 'auction.category'),
    auction_extra text OPTIONS (path 'auction.extra'),
    auction bigint OPTIONS (path 'bid.auction'),
    bidder bigint OPTIONS (path 'bid.bidder'),
    price bigint OPTIONS (path 'bid.price'),
    channel text OPTIONS (path 'bid.channel'),
    url text OPTIONS (path 'bid.url'),
    extra text OPTIONS (path 'bid.extra')
) SERVER nexmark OPTIONS (topic '{topic}', format 'json', event_time 'ts', watermark_delay '4 s', buffer_size '10000');

-- Persons, auctions and bids as ordinary tables, for the queries that join them. A view takes each batch before those that were
-- created after it, so that a bid finds every auction that came before it.
CREATE TABLE person (id bigint PRIMARY KEY, name text, email text, credit_card text, city text, state text, ts timestamptz, extra text);
CREATE VIEW person_rows WITH (streamext.continuous, streamext.into = 'person') AS
SELECT person_id AS id, name, email, credit_card, city, state, ts, person_extra AS extra FROM event WHERE event_type = 0;

CREATE TABLE auction (
    id bigint PRIMARY KEY, item_name text, description text, initial_bid bigint, reserve bigint, ts timestamptz,
    expires timestamptz, seller bigint, category int, extra text
);
CREATE VIEW auction_rows WITH (streamext.continuous, streamext.into = 'auction') AS
SELECT auction_id AS id, item_name, description, initial_bid, reserve, ts, expires, seller, category, auction_extra AS extra
FROM event WHERE event_type = 1;

CREATE TABLE bid (auction bigint, bidder bigint, price bigint, channel text, url text, ts timestamptz, extra text);
CREATE VIEW bid_rows WITH (streamext.continuous, streamext.into = 'bid') AS
SELECT auction, bidder, price, channel, url, ts, extra FROM event WHERE event_type = 2;

-- highest(bid): the bids with the highest price, all of them. It keeps no other.
CREATE FUNCTION higher(bid[], bid[]) RETURNS bid[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN $1 IS NULL OR ($2[1]).price > ($1[1]).price THEN $2
            WHEN $2 IS NULL OR ($2[1]).price < ($1[1]).price THEN $1
            ELSE $1 || $2 END;
CREATE FUNCTION higher(bid[], bid) RETURNS bid[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN $1 IS NULL OR ($2).price > ($1[1]).price THEN ARRAY[$2]
            WHEN ($2).price < ($1[1]).price THEN $1
            ELSE $1 || $2 END;
CREATE AGGREGATE highest(bid) (SFUNC = higher, STYPE = bid[], COMBINEFUNC = higher, PARALLEL = SAFE);

-- top10(bid): the ten with the highest prices, of equal ones the earlier, in that order.
CREATE FUNCTION top10_of(bid[]) RETURNS bid[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (ARRAY(SELECT b FROM unnest($1) AS b ORDER BY b.price DESC, b.ts LIMIT 10));
CREATE FUNCTION top10_merge(bid[], bid[]) RETURNS bid[] LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN top10_of($1 || $2);
CREATE FUNCTION top10_add(bid[], bid) RETURNS bid[] LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN ($2).price < ($1[10]).price THEN $1 ELSE top10_of($1 || $2) END;
CREATE AGGREGATE top10(bid) (SFUNC = top10_add, STYPE = bid[], COMBINEFUNC = top10_merge, INITCOND = '{}', PARALLEL = SAFE);

-- The winning bid of each auction: the highest of those that came while it was open, of equal ones the earliest.
CREATE VIEW winner WITH (streamext.continuous) AS
SELECT a.id, highest(ROW(e.auction, e.bidder, e.price, e.channel, e.url, e.ts, e.extra)::bid) AS bids
FROM event e JOIN auction a ON a.id = e.auction
WHERE e.event_type = 2 AND e.ts BETWEEN a.ts AND a.expires
GROUP BY a.id;
CREATE VIEW winning AS
SELECT w.id, b.auction, b.bidder, b.price, b.ts, b.extra
FROM winner w, LATERAL (SELECT * FROM unnest(w.bids) ORDER BY ts LIMIT 1) AS b;
