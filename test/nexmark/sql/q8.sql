-- Monitor new users: who entered the system and opened an auction in the same 10 seconds?
CREATE VIEW q8_persons WITH (streamext.continuous) AS
SELECT person_id AS id, name, streamext.tumble('10 s', ts) AS start FROM event WHERE event_type = 0 GROUP BY person_id, name, start;
CREATE VIEW q8_sellers WITH (streamext.continuous) AS
SELECT seller, streamext.tumble('10 s', ts) AS start FROM event WHERE event_type = 1 GROUP BY seller, start;
CREATE VIEW q8 AS
SELECT p.id, p.name, p.start FROM q8_persons p JOIN q8_sellers a ON p.id = a.seller AND p.start = a.start;

-- The question, over ordinary tables:
SELECT p.id, p.name, p.start
FROM (SELECT id, name, streamext.tumble('10 s', ts) AS start FROM oracle.person GROUP BY id, name, start) p
JOIN (SELECT seller, streamext.tumble('10 s', ts) AS start FROM oracle.auction GROUP BY seller, start) a
ON p.id = a.seller AND p.start = a.start
