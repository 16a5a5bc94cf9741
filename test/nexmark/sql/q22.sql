-- Get URL directories: what is the directory structure of the url?
CREATE VIEW q22 WITH (streamext.continuous) AS
SELECT auction, bidder, price, channel, split_part(url, '/', 4) AS dir1, split_part(url, '/', 5) AS dir2, split_part(url, '/', 6) AS dir3
FROM event WHERE event_type = 2;

-- The question, over ordinary tables:
SELECT auction, bidder, price, channel, split_part(url, '/', 4), split_part(url, '/', 5), split_part(url, '/', 6) FROM oracle.bid
