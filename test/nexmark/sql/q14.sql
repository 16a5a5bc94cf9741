-- Calculation: bids within a range of prices, with the time of day as a word, and how many c are in a text.
CREATE FUNCTION count_char(text, text) RETURNS int LANGUAGE sql IMMUTABLE
RETURN length($1) - length(replace($1, $2, ''));
CREATE VIEW q14 WITH (streamext.continuous) AS
SELECT auction, bidder, (0.908 * price)::numeric(23, 3) AS price,
       CASE WHEN extract(hour FROM ts) BETWEEN 8 AND 18 THEN 'dayTime'
            WHEN extract(hour FROM ts) <= 6 OR extract(hour FROM ts) >= 20 THEN 'nightTime'
            ELSE 'otherTime' END AS time_of_day,
       ts, extra, count_char(extra, 'c') AS c_counts
FROM event WHERE event_type = 2 AND 0.908 * price > 1000000 AND 0.908 * price < 50000000;

-- The question, over ordinary tables:
SELECT auction, bidder, (0.908 * price)::numeric(23, 3),
       CASE WHEN extract(hour FROM ts) BETWEEN 8 AND 18 THEN 'dayTime'
            WHEN extract(hour FROM ts) <= 6 OR extract(hour FROM ts) >= 20 THEN 'nightTime'
            ELSE 'otherTime' END,
       ts, extra, count_char(extra, 'c')
FROM oracle.bid WHERE 0.908 * price > 1000000 AND 0.908 * price < 50000000
