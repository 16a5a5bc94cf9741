-- Get URL directories: what is the directory structure of the url?
CREATE TABLE q22 (auction bigint, bidder bigint, price bigint, channel text, dir1 text, dir2 text, dir3 text);
CREATE VIEW q22_rows WITH (streamext.continuous, streamext.into = 'q22') AS
SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
FROM event WHERE event_type = 2;

-- The question, over ordinary tables:
SELECT auction, bidder, price, channel, split_part(url, '/', 4), split_part(url, '/', 5), split_part(url, '/', 6) FROM oracle.bid
