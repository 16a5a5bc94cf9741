-- Local item suggestion: who sells in OR, ID or CA in category 10, and which auctions?
CREATE VIEW q3 AS
SELECT p.name, p.city, p.state, a.id FROM auction a JOIN person p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA');

-- The question, over ordinary tables:
SELECT p.name, p.city, p.state, a.id FROM oracle.auction a JOIN oracle.person p ON a.seller = p.id
WHERE a.category = 10 AND p.state IN ('OR', 'ID', 'CA')
