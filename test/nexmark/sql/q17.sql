-- Auction statistics report: bids and prices of each auction and day.
CREATE VIEW q17 WITH (streamext.continuous) AS
SELECT auction, to_char(date_trunc('day', ts), 'YYYY-MM-DD') AS day,
       count(*) AS total_bids,
       count(*) FILTER (WHERE price < 10000) AS rank1_bids,
       count(*) FILTER (WHERE price >= 10000 AND price < 1000000) AS rank2_bids,
       count(*) FILTER (WHERE price >= 1000000) AS rank3_bids,
       min(price) AS min_price, max(price) AS max_price, avg(price) AS avg_price, sum(price) AS sum_price
FROM event WHERE event_type = 2 GROUP BY auction, date_trunc('day', ts);

-- The question, over ordinary tables:
SELECT auction, to_char(ts, 'YYYY-MM-DD'),
       count(*),
       count(*) FILTER (WHERE price < 10000),
       count(*) FILTER (WHERE price >= 10000 AND price < 1000000),
       count(*) FILTER (WHERE price >= 1000000),
       min(price), max(price), avg(price), sum(price)
FROM oracle.bid GROUP BY auction, to_char(ts, 'YYYY-MM-DD')
