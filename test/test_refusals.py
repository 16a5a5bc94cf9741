"""What CREATE VIEW refuses, by the tables "What is refused" of docs/reference.md: each with a hint, and the form that works instead. What else src/ raises there is argued here."""

import re
from pathlib import Path

import psycopg
import pytest
from harness.database import Database
from harness.streams import continuous, local_stream
from test_query import stream, tables

REPOSITORY = Path(__file__).parent.parent
CONTINUOUS = "CREATE VIEW v WITH (streamext.continuous) AS "
MINUTE = "streamext.tumble('1 min', ts)"

# By the statement that is refused: what its hint and the table's last column name. Statements that follow each other are one way,
# a SELECT is a continuous view's. inner_view: its statement is in the hint.
INSTEAD: dict[str, list[str]] = {
    "SELECT count(*) FROM s JOIN s2 USING (device)": [
        "CREATE VIEW a WITH (streamext.continuous) AS SELECT device, count(*) AS n FROM s GROUP BY device",
        "CREATE VIEW b WITH (streamext.continuous) AS SELECT device, count(*) AS n FROM s2 GROUP BY device",
        "CREATE VIEW w AS SELECT sum(a.n * b.n) FROM a JOIN b USING (device)"],
    "SELECT count(*) FROM s JOIN minutes USING (device)": [
        "CREATE VIEW a WITH (streamext.continuous) AS SELECT device, count(*) AS n FROM s GROUP BY device",
        "CREATE VIEW w AS SELECT sum(a.n) FROM a JOIN minutes USING (device)"],
    "SELECT count(*) FROM minutes a JOIN minutes b USING (device)": ["CREATE VIEW w AS SELECT count(*) FROM minutes a JOIN minutes b USING (device)"],
    "SELECT count(*) FROM lines LEFT JOIN s USING (device)": ["SELECT count(*) FROM s LEFT JOIN lines USING (device)"],
    "SELECT site FROM s UNION SELECT site FROM s2": ["SELECT DISTINCT site FROM (SELECT site FROM s UNION ALL SELECT site FROM s2) q"],
    "SELECT count(*) FROM (SELECT site FROM s UNION SELECT site FROM s2) q": [
        "CREATE VIEW a WITH (streamext.continuous) AS SELECT DISTINCT site FROM (SELECT site FROM s UNION ALL SELECT site FROM s2) q", "CREATE VIEW w AS SELECT count(*) FROM a"],
    "SELECT site FROM s EXCEPT SELECT site FROM s2": [
        "CREATE VIEW a WITH (streamext.continuous) AS SELECT DISTINCT site FROM s", "CREATE VIEW b WITH (streamext.continuous) AS SELECT DISTINCT site FROM s2",
        "CREATE VIEW w AS SELECT site FROM a EXCEPT SELECT site FROM b"],
    "SELECT count(*) FROM s UNION ALL SELECT count(*) FROM s2": ["SELECT count(*) FROM (SELECT site FROM s UNION ALL SELECT site FROM s2) q"],
    "SELECT count(*) FROM (SELECT site FROM s JOIN lines USING (device) UNION ALL SELECT site FROM s2) q": [
        "SELECT count(*) FROM (SELECT site, device FROM s UNION ALL SELECT site, device FROM s2) q JOIN lines USING (device)"],
    f"SELECT count(*) FROM (SELECT {MINUTE} AS w FROM s UNION ALL SELECT ts FROM s2) q GROUP BY w": [f"SELECT count(*) FROM (SELECT ts FROM s UNION ALL SELECT ts FROM s2) q GROUP BY {MINUTE}"],
    "SELECT count(*) FROM (SELECT generate_series(1, 2) AS n FROM s UNION ALL SELECT 1 FROM s2) q": ["SELECT count(*) FROM (SELECT site FROM s UNION ALL SELECT site FROM s2) q, generate_series(1, 2) n"],
    "SELECT count(*) FROM (SELECT device FROM s UNION ALL SELECT device FROM lines) q": ["SELECT count(*) FROM (SELECT device FROM s UNION ALL SELECT device FROM s2) q JOIN lines USING (device)"],
    "SELECT max(n) FROM totals": ["CREATE VIEW w AS SELECT max(n) FROM totals"],
    "SELECT max(n) FROM sliding": ["CREATE VIEW w AS SELECT max(n) FROM sliding"],
    "SELECT max(n) FROM distincts": ["CREATE VIEW w AS SELECT max(n) FROM distincts"],
    "SELECT max(n) FROM limited": ["CREATE VIEW w AS SELECT max(n) FROM limited"],
    "SELECT max(r) FROM ranked": ["CREATE VIEW w AS SELECT max(r) FROM ranked"],
    "SELECT max(age) FROM aged": ["CREATE VIEW a WITH (streamext.continuous) AS SELECT streamext.tumble('1 min', ts) AS w, max(ts) AS newest FROM s GROUP BY w", "SELECT now() - max(newest) FROM a"],
    "SELECT max(n) FROM (SELECT site, count(*) AS n FROM s GROUP BY site) q": ["inner_view", "CREATE VIEW w AS SELECT max(n) FROM inner_view q"],
    "WITH q AS (SELECT site, streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY site, w) SELECT max(a.n) FROM q a JOIN q b USING (site)": [
        "inner_view", "CREATE VIEW w AS SELECT max(a.n) FROM inner_view a JOIN inner_view b USING (site)"],
    "WITH q AS (SELECT DISTINCT site FROM s) SELECT count(*) FROM q": ["inner_view", "CREATE VIEW w AS SELECT count(*) FROM inner_view q"],
    "SELECT max(temperature) FROM (SELECT DISTINCT ON (site) site, temperature FROM s ORDER BY site, ts) q": [
        "SELECT site, streamext.first(temperature, ts) AS t FROM s GROUP BY site", "CREATE VIEW w AS SELECT max(t) FROM v"],
    "SELECT count(*) FROM (SELECT row_number() OVER () AS n FROM s) q": ["SELECT site FROM s", "CREATE VIEW w AS SELECT count(*) FROM (SELECT row_number() OVER () AS n FROM v) q"],
    "SELECT count(*) FROM (SELECT * FROM s LIMIT 5) q": ["SELECT * FROM s", "CREATE VIEW w AS SELECT count(*) FROM (SELECT * FROM v LIMIT 5) q"],
    "SELECT count(*) FROM (SELECT streamext.hop('2 min', '1 min', ts) FROM s) q": ["SELECT count(*) FROM s GROUP BY streamext.hop('2 min', '1 min', ts)"],
    "WITH RECURSIVE w AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM w WHERE n < 3) SELECT n, count(*) FROM s, w GROUP BY n": [
        "CREATE VIEW a AS WITH RECURSIVE w AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM w WHERE n < 3) TABLE w", "SELECT n, count(*) FROM s, a GROUP BY n"],
    "WITH w AS (SELECT random() AS r) SELECT count(*) FROM s, w WHERE r < 0.5": ["SELECT count(*), random() AS r FROM s HAVING random() < 0.5"],
    "SELECT count(*) FROM barred JOIN lines USING (device)": [
        "CREATE VIEW a WITH (streamext.continuous) AS SELECT device, count(*) AS n FROM barred GROUP BY device", "CREATE VIEW w AS SELECT sum(n) FROM a JOIN lines USING (device)"],
    "CREATE VIEW v WITH (streamext.continuous, security_invoker) AS SELECT count(*) FROM s JOIN lines USING (device)": ["SELECT count(*) FROM s JOIN lines USING (device)"],
    "SELECT count(*) FROM s WHERE ts > now() - theirs()": ["SELECT count(*) FROM s WHERE ts > now() - interval '1 min'"],
    "SELECT DISTINCT ON (site) site, device FROM s": ["SELECT site, device FROM s", "CREATE VIEW w AS SELECT DISTINCT ON (site) site, device FROM v"],
    "SELECT site FROM s ORDER BY ts": ["SELECT site, ts FROM s", "CREATE VIEW w AS SELECT site FROM v ORDER BY ts"],
    "SELECT site FROM s LIMIT 3": ["SELECT site FROM s", "CREATE VIEW w AS SELECT site FROM v LIMIT 3"],
    "SELECT row_number() OVER () FROM s": ["SELECT site FROM s", "CREATE VIEW w AS SELECT row_number() OVER () FROM v"],
    "SELECT site FROM s WHERE ts > now() - interval '1 min'": ["SELECT site, ts FROM s", "CREATE VIEW w AS SELECT site FROM v WHERE ts > now() - interval '1 min'"],
    f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT DISTINCT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w": [
        f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w", "CREATE VIEW w AS SELECT DISTINCT w, n FROM t"],
    f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w LIMIT 3": [
        f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w", "CREATE VIEW w AS SELECT w, n FROM t LIMIT 3"],
    "CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT count(*) AS n FROM s": ["SELECT count(*) AS n FROM s", "CREATE VIEW w AS SELECT n FROM v"],
    "CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT count(*) AS n FROM s WHERE ts > now() - interval '1 min'": [
        "SELECT count(*) AS n FROM s WHERE ts > now() - interval '1 min'", "CREATE VIEW w AS SELECT n FROM v"],
    "SELECT count(*) FROM s GROUP BY ROLLUP (streamext.hop('2 min', '1 min', ts), site)": ["SELECT count(*) FROM s GROUP BY streamext.hop('2 min', '1 min', ts), ROLLUP (site)"],
    f"CREATE VIEW v WITH (streamext.continuous, streamext.retention = '1 h') AS SELECT count(*) FROM s GROUP BY ROLLUP ({MINUTE}, site)": [
        f"CREATE VIEW v WITH (streamext.continuous, streamext.retention = '1 h') AS SELECT count(*) FROM s GROUP BY {MINUTE}, ROLLUP (site)",
        "CREATE VIEW u WITH (streamext.continuous) AS SELECT count(*) FROM s GROUP BY ROLLUP (site)"],
    f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY ROLLUP (w)": [
        f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w", "CREATE VIEW u WITH (streamext.continuous) AS SELECT count(*) FROM s"],
    "SELECT count(*) FROM rolled": [f"CREATE VIEW a WITH (streamext.continuous) AS SELECT site, {MINUTE} AS w, count(*) FROM s GROUP BY w, ROLLUP (site)", "SELECT count(*) FROM a"],
    "SELECT k.device, k.line, count(*) FROM s JOIN keyed k USING (device) GROUP BY k.device": ["SELECT k.device, k.line, count(*) FROM s JOIN keyed k USING (device) GROUP BY k.device, k.line"],
    f"SELECT count(*) FROM s GROUP BY {MINUTE}, streamext.tumble('2 min', ts)": [
        f"SELECT count(*) FROM s GROUP BY {MINUTE}", "CREATE VIEW u WITH (streamext.continuous) AS SELECT count(*) FROM s GROUP BY streamext.tumble('2 min', ts)"],
    "SELECT count(*) FROM s WHERE ts > now() - interval '1 min' AND ts > now() - interval '2 min'": ["SELECT count(*) FROM s WHERE ts > now() - interval '1 min'"],
    "SELECT count(*) FROM s WHERE ts <= now()": ["SELECT count(*) FROM s WHERE ts <= now() AND ts > now() - interval '1 minute'"],
    "SELECT count(*) FROM s GROUP BY streamext.tumble('1 min', ts + interval '1 s')": [f"SELECT count(*) FROM s GROUP BY {MINUTE}"],
    "SELECT count(*) FROM s GROUP BY streamext.tumble(humidity * interval '1 s', ts)": ["SELECT count(*) FROM s GROUP BY streamext.tumble('10 s', ts)"],
    "SELECT count(*) FROM s GROUP BY streamext.tumble('1 month', ts)": ["SELECT count(*) FROM s GROUP BY date_trunc('month', ts)", "CREATE VIEW u WITH (streamext.continuous) AS SELECT count(*) FROM s GROUP BY streamext.tumble('30 days', ts)"],
    "SELECT count(*) FROM s WHERE random() < 0.5": ["SELECT count(*) FROM s HAVING random() < 0.5"],
    "SELECT max(now() - ts) FROM s": ["SELECT now() - min(ts) FROM s"],
    "SELECT count(*) FILTER (WHERE site = CURRENT_USER) FROM s": ["SELECT site, count(*) FROM s GROUP BY site HAVING site = CURRENT_USER"],
    "SELECT count(*) FROM s WHERE current_setting('work_mem') = site": ["SELECT site, count(*) FROM s GROUP BY site HAVING current_setting('work_mem') = site"],
    "SELECT count(*) FROM s WHERE has_table_privilege(site, 'SELECT')": ["SELECT site, count(*) FROM s GROUP BY site HAVING has_table_privilege(site, 'SELECT')"],
    "SELECT count(*) FROM s GROUP BY site::regclass": ["SELECT site::regclass, count(*) FROM s GROUP BY site"],
    "SELECT count(*) FROM s WHERE date_trunc('hour', ts) > now() - interval '1 h'": ["SELECT count(*) FROM s WHERE ts > now() - interval '1 h'"],
    "SELECT count(*) FROM s WHERE looks_up(site)": ["SELECT count(*) FROM s JOIN lines USING (device)"],
    "SELECT count(*) FROM s GROUP BY nextval('numbers')": ["CREATE VIEW v WITH (streamext.continuous, streamext.into = 'numbered') AS SELECT site FROM s"],
    "SELECT count(*) FROM s GROUP BY (SELECT max(rank) FROM lines)": ["SELECT count(*) FROM s, (SELECT max(rank) AS top FROM lines) q GROUP BY top"],
    "SELECT sum((SELECT rank FROM lines l WHERE l.device = s.device)) FROM s": ["SELECT sum(rank) FROM s LEFT JOIN LATERAL (SELECT rank FROM lines l WHERE l.device = s.device) q ON true"],
    "SELECT generate_series(1, generate_series(1, 2)) AS n, count(*) FROM s GROUP BY n": ["SELECT b AS n, count(*) FROM s, generate_series(1, 2) a, LATERAL generate_series(1, a) b GROUP BY n"],
    "SELECT generate_series(1, 2) AS n, streamext.hop('2 min', '1 min', ts) AS w, count(*) FROM s GROUP BY n, w": ["SELECT n, streamext.hop('2 min', '1 min', ts) AS w, count(*) FROM s, generate_series(1, 2) n GROUP BY n, w"],
    "SELECT (jsonb_each(to_jsonb(site))).key AS k, count(*) FROM s GROUP BY k": ["SELECT e.key AS k, count(*) FROM s, LATERAL jsonb_each(to_jsonb(site)) e GROUP BY k"],
    "SELECT count(*) FROM s GROUP BY site::tsvector": ["SELECT count(*) FROM s GROUP BY site::tsvector::text"],
    "SELECT streamext.approx_count_distinct(site::tsvector) FROM s": ["SELECT streamext.approx_count_distinct(site::tsvector::text) FROM s"],
    "SELECT device, streamext.merge(n) FROM minutes GROUP BY device": [
        "CREATE VIEW w AS SELECT device, streamext.merge(n) FROM minutes GROUP BY device",
        f"SELECT site, streamext.cardinality(streamext.merge(d)) FROM (SELECT site, {MINUTE} AS w, streamext.sketch_distinct(device) AS d FROM s GROUP BY site, w) q GROUP BY site"],
    "SELECT count(streamext.partial(n)) FROM minutes": ["CREATE VIEW w AS SELECT streamext.partial(n) FROM minutes"],
    "SELECT count(s.*) FROM s": ["SELECT count(device) FROM s"],
    "SELECT count(s.tableoid) FROM s": ["SELECT count(device) FROM s"],
    "SELECT percentile_cont(humidity) WITHIN GROUP (ORDER BY temperature) FROM s GROUP BY humidity": ["SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY temperature) FROM s GROUP BY humidity"],
    "SELECT 1 AS one": ["SELECT 1 AS one FROM s"],
    "SELECT count(*) FROM generate_series(1, 3)": ["SELECT count(*) FROM s, generate_series(1, 3)"],
    "SELECT count(*) FROM (VALUES (1)) v": ["SELECT count(*) FROM s, (VALUES (1)) v"],
    "SELECT x, count(*) FROM lines, LATERAL (SELECT site AS x FROM s UNION ALL SELECT lines.line FROM s2) q GROUP BY x": [
        "SELECT coalesce(x, line) AS x, count(*) FROM (SELECT site AS x FROM s UNION ALL SELECT NULL FROM s2) q, lines GROUP BY 1"],
    "SELECT count(*) FROM (SELECT site FROM s UNION ALL (SELECT site FROM s2 LIMIT 3)) q": ["SELECT site FROM s UNION ALL SELECT site FROM s2", "CREATE VIEW w AS SELECT site FROM v LIMIT 3"],
    "SELECT count(*) FROM passed_on": ["DROP VIEW passed_on", "CREATE VIEW passed_on WITH (streamext.continuous) AS SELECT site FROM s", "SELECT count(*) FROM passed_on"],
    "SELECT count(*) FROM s WHERE ts + interval '1 day' > now()": ["SELECT count(*) FROM s WHERE ts > now() - interval '1 day'"],
    f"SELECT max({MINUTE}) FROM s": [f"CREATE VIEW a WITH (streamext.continuous) AS SELECT {MINUTE} AS w FROM s GROUP BY w", "CREATE VIEW w AS SELECT max(w) FROM a"],
    "SELECT count(*) FROM s WHERE ts > now() - interval '1 min' AND ts < now() AND ts <= now()": ["SELECT count(*) FROM s WHERE ts > now() - interval '1 min' AND ts <= now()"],
    "SELECT count(*) FROM s WHERE ts > 'today'::text::timestamptz": ["SELECT date_trunc('day', ts) AS day, count(*) FROM s GROUP BY day HAVING date_trunc('day', ts) > 'yesterday'::text::timestamptz"],
    "SELECT max(n) FROM (SELECT n FROM minutes UNION ALL SELECT n FROM minutes) q": ["CREATE VIEW w AS SELECT max(n) FROM (SELECT n FROM minutes UNION ALL SELECT n FROM minutes) q"],
    "SELECT count(*) FROM (SELECT site FROM both_streams UNION ALL SELECT site FROM s) q": ["SELECT count(*) FROM (SELECT site FROM s UNION ALL SELECT site FROM s2 UNION ALL SELECT site FROM s) q"],
    "SELECT count(*) FROM hook": ["SELECT count(*) FROM s"],
    "SELECT count(*) FROM s, lines TABLESAMPLE SYSTEM (10)": ["SELECT count(*) FROM s, lines WHERE hashtext(lines.device) % 10 = 0"],
    f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 'ruled') AS SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w": [
        f"CREATE VIEW v WITH (streamext.continuous, streamext.into = 't') AS SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w"],
    "SELECT site FROM s FOR UPDATE": ["SELECT site FROM s"],
}  # fmt: skip

TUMBLED = f"SELECT count(*) FROM s GROUP BY {MINUTE}"
ALERT = "CREATE VIEW v WITH (streamext.alert{}) AS SELECT site, n FROM totals WHERE n > 5"
WITH_OPTION = "CREATE VIEW v WITH (streamext.continuous, {}) AS {}"
INTO = "CREATE VIEW v WITH (streamext.continuous, streamext.into = '{}') AS {}"
BY_WINDOW = f"SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w"
DEVICES = f"SELECT device, {MINUTE} AS w, count(*) AS n FROM s GROUP BY device, w"
RETAINED = WITH_OPTION.format("streamext.retention = '{}'", TUMBLED)

# The same of the second table, whose statements are whole.
INSTEAD_OTHER: dict[str, list[str]] = {
    "SELECT count(*) FROM lines": ["SELECT count(*) FROM s JOIN lines USING (device)", "CREATE VIEW w AS SELECT count(*) FROM lines"],
    "SELECT count(*) FROM lines JOIN owners USING (line)": ["CREATE VIEW w AS SELECT count(*) FROM lines JOIN owners USING (line)"],
    INTO.format("both_streams", "SELECT site FROM s"): [INTO.format("sites", "SELECT site FROM s")],
    f"CREATE OR REPLACE VIEW minutes AS {DEVICES}": [f"CREATE OR REPLACE VIEW minutes WITH (streamext.continuous) AS {DEVICES}", f"CREATE OR REPLACE VIEW aged WITH (streamext.continuous = false) AS SELECT {MINUTE} AS w, now() - max(ts) AS age FROM o GROUP BY w"],
    "ALTER VIEW both_streams SET (streamext.retention = '1 h')": ["CREATE OR REPLACE VIEW both_streams WITH (streamext.continuous) AS SELECT site FROM s UNION ALL SELECT site FROM s2"],
    INTO.format("s", "SELECT * FROM s WHERE humidity > 90"): [INTO.format("s2", "SELECT * FROM s WHERE humidity > 90")],
    "CREATE OR REPLACE VIEW minutes WITH (streamext.continuous) AS SELECT device, w, n FROM copies": ["CREATE VIEW v WITH (streamext.continuous) AS SELECT device, w, n FROM copies"],
    ALERT.format(", streamext.key = 'device'"): [ALERT.format(", streamext.key = 'site'")],
    "CREATE VIEW v WITH (streamext.alert, streamext.to = 'hook') AS SELECT n FROM totals WHERE n > 5": [ALERT.format(", streamext.to = 'hook'")],
    RETAINED.format("1 h").replace("retention", "retain"): [RETAINED.format("1 h")],
    RETAINED.format("1 h").replace("streamext.retention", "retention"): [RETAINED.format("1 h")],
    WITH_OPTION.format("streamext.retention = '1 h', streamext.retention = '2 h'", TUMBLED): [RETAINED.format("1 h")],
    f"CREATE VIEW v WITH (streamext.retention = '1 h') AS {TUMBLED}": [RETAINED.format("1 h")],
    WITH_OPTION.format("streamext.hold = '1 min'", "SELECT count(*) AS n FROM s"): [ALERT.format(", streamext.hold = '1 min'")],
    ALERT.format(", streamext.retention = '1 h'"): [RETAINED.format("1 h")],
    WITH_OPTION.format("streamext.alert", "SELECT site, count(*) AS n FROM s GROUP BY site"): [ALERT.format("")],
    "CREATE MATERIALIZED VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s": ["SELECT count(*) FROM s"],
    RETAINED.format("-1 h"): [RETAINED.format("1 h")],
    RETAINED.format("1 month"): [RETAINED.format("30 days")],
    RETAINED.format("200000000 days"): [RETAINED.format("2000000 days")],
    WITH_OPTION.format("streamext.max_groups = 'many'", "SELECT site, count(*) FROM s GROUP BY site"): [WITH_OPTION.format("streamext.max_groups = '0'", "SELECT site, count(*) FROM s GROUP BY site")],
    WITH_OPTION.format("streamext.into = 't', streamext.emit = 'rows'", BY_WINDOW): [WITH_OPTION.format("streamext.into = 't', streamext.emit = 'windows'", BY_WINDOW)],
    ALERT.format(", streamext.key = 'site,'"): [ALERT.format(""", streamext.key = 'site, "n"'""")],
    ALERT.format(", streamext.to = ''"): [ALERT.format(", streamext.to = 'duty'")],
    WITH_OPTION.format("streamext.emit = 'changes'", "SELECT site, count(*) AS n FROM s GROUP BY site"): [
        WITH_OPTION.format("streamext.into = 'counted', streamext.emit = 'changes'", "SELECT site, count(*) AS n FROM s GROUP BY site")],
    WITH_OPTION.format("streamext.step = '1 s'", "SELECT count(*) FROM s"): [WITH_OPTION.format("streamext.step = '1 s'", "SELECT count(*) FROM s WHERE ts > now() - interval '1 minute'")],
    WITH_OPTION.format("streamext.step = '90 s'", "SELECT count(*) FROM s WHERE date_trunc('minute', ts) > now() - interval '1 h'"): [
        "SELECT count(*) FROM s WHERE date_trunc('minute', ts) > now() - interval '1 h'", "CREATE VIEW u WITH (streamext.continuous, streamext.step = '90 s') AS SELECT count(*) FROM s WHERE ts > now() - interval '1 h'"],
    ALERT.format(", streamext.absent = '1 min', streamext.clear = 'n < 3'"): [ALERT.format(", streamext.absent = '1 min'")],
    "SELECT count(*) FROM s GROUP BY streamext.tumble('0 s', ts)": ["SELECT count(*) FROM s GROUP BY streamext.tumble('10 s', ts)"],
    "SELECT count(*) FROM s WHERE ts > now() - interval '0 s'": ["SELECT count(*) FROM s WHERE ts > now() - interval '1 minute'"],
    "SELECT count(*) FROM s GROUP BY date_trunc('fortnight', ts)": ["SELECT count(*) FROM s GROUP BY date_trunc('week', ts)"],
    "SELECT count(*) FROM s GROUP BY streamext.hop('1 day', '1 s', ts)": ["SELECT count(*) FROM s GROUP BY streamext.hop('1 day', '10 s', ts)"],
    "SELECT count(*) FROM s WHERE ts > now() - interval '209 days'": ["SELECT count(*) FROM s WHERE ts > now() - interval '5016 hours'"],
    "SELECT count(*) FROM s GROUP BY date_bin('1 min', ts, 'infinity')": ["SELECT count(*) FROM s GROUP BY date_bin('1 min', ts, '2000-01-01')"],
    "CREATE TEMP VIEW v WITH (streamext.continuous) AS SELECT count(*) FROM s": ["SELECT count(*) FROM s"],
    ALERT.format("").replace("VIEW", "TEMP VIEW"): [ALERT.format("")],
    f"SET LOCAL TimeZone = 'Asia/Tokyo'; {CONTINUOUS}SELECT count(*) FROM derived": ["SELECT count(*) FROM derived"],
    ALERT.format(", streamext.to = 'filed'"): [ALERT.format(", streamext.to = 'hook'")],
    WITH_OPTION.format("streamext.into = 's2', streamext.emit = 'changes'", "SELECT site, count(*) AS n FROM s GROUP BY site"): [
        WITH_OPTION.format("streamext.into = 'counted', streamext.emit = 'changes'", "SELECT site, count(*) AS n FROM s GROUP BY site")],
    WITH_OPTION.format("streamext.into = 'changed', streamext.emit = 'changes'", "SELECT device, site, count(*) AS n FROM s GROUP BY device, site"): [
        WITH_OPTION.format("streamext.into = 'counted', streamext.emit = 'changes'", "SELECT site, count(*) AS n FROM s GROUP BY site")],
    "ALTER VIEW minutes RESET (streamext.continuous)": ["DROP VIEW copies", f"CREATE OR REPLACE VIEW minutes WITH (streamext.continuous = false) AS {DEVICES.replace('FROM s', 'FROM o')}"],
    "ALTER VIEW sliding SET (streamext.step = '1 s')": [
        "CREATE OR REPLACE VIEW sliding WITH (streamext.continuous, streamext.step = '1 s') AS SELECT site, count(*) AS n FROM s WHERE ts > now() - interval '1 min' GROUP BY site"],
    "ALTER VIEW warned RESET (streamext.alert)": ["CREATE OR REPLACE VIEW warned AS SELECT site, n FROM totals WHERE n > 5"],
    "ALTER VIEW nested SET (security_invoker)": ["ALTER VIEW nested RESET (security_invoker)", "GRANT SELECT ON nested TO anybody"],
    "CREATE RULE r AS ON INSERT TO minutes DO INSTEAD NOTHING": [INTO.format("t", BY_WINDOW), "CREATE RULE r AS ON DELETE TO t DO INSTEAD NOTHING"],
    "CREATE TRIGGER r INSTEAD OF INSERT ON minutes FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()": [
        INTO.format("t", BY_WINDOW), "CREATE TRIGGER r BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"],
}  # fmt: skip

# What is too long for a table: by SQLSTATE, and what works.
MANY = [
    ("54000", f"SELECT count(*) FROM s GROUP BY {', '.join(f'temperature + {i}' for i in range(33))}", f"SELECT min(temperature) FROM s GROUP BY {', '.join(f'temperature + {i}' for i in range(32))}"),
    ("54000", f"SELECT {', '.join(f'sum(temperature + {i}) AS s{i}' for i in range(129))} FROM s", f"SELECT {', '.join(f'sum(temperature + {i}) AS s{i}' for i in range(128))} FROM s"),
    ("54000", "SELECT count(*) FROM s GROUP BY CUBE (device, site, temperature, humidity, temperature + 1, temperature + 2, temperature + 3, temperature + 4)", "SELECT count(*) FROM s GROUP BY CUBE (device, site, temperature)"),
    ("54000", f"SELECT count(*) FROM ({' UNION ALL '.join(['SELECT site FROM s'] * 17)}) q", f"SELECT count(*) FROM ({' UNION ALL '.join(['SELECT site FROM s'] * 16)}) q"),
    ("54001", f"SELECT count(*) FROM {'(SELECT * FROM ' * 257}s{') q' * 257}", f"SELECT count(*) FROM {'(SELECT * FROM ' * 200}s{') q' * 200}"),
]  # fmt: skip

# By message, why no statement here raises it.
ELSEWHERE = {
    "continuous views do not support UNION ALL over \"%s\", whose journal is of several workers": "needs a broker of MQTT: test_unions.py",
    "continuous views do not support UNION ALL over \"%s\", which keeps no journal": "the same",
    "the query of a continuous view is too long": "test_bounds.py; it takes seconds",
    "view option \"streamext.step\" must divide 30 minutes when the sliding predicate counts in days": "below",
    "invalid value for view option \"streamext.clear\": %s": "what is no condition is PostgreSQL's syntax error, unless it closes our parentheses: test_alerts.py",
    "time zone \"%s\" not recognized": "PostgreSQL says so first",
    # not of CREATE VIEW: a worker or reader finds it later, and the view's or alert's state tells
    "the query of an alert is too large": "views below it were replaced: test_alerts.py",
    "an alert has more than %d rows": "when it is evaluated",
    "the alert is a superuser's and calls a function of an ordinary role": "it was restored, or the function was given away: test_identity.py",
    "the view is a superuser's and calls functions of ordinary roles": "the same of a continuous view",
    "time zone \"%s\" of continuous view \"%s\" is not known": "the machine's time zones are others",
    "group key is too large": "of a row",
    "an infinite timestamp is in no hopping window": "streamext.hop of a row",
    "streamext.session() works in continuous views only": "in a query that is none",
    "\"%s\" is not a view": "what compiles it has been told a wrong OID",
    # of trees that PostgreSQL's parser does not make today
    "continuous views do not support VALUES alone in FROM": "they come as subqueries",
    "continuous views do not support anything but SELECT": "a view's query",
    "continuous views do not support columns of UNION ALL that need an explicit cast": "PostgreSQL refuses them",
    "continuous views do not support joins": "they are looked at one by one",
    "continuous views do not support parameters in %s": "PostgreSQL has none in a view",
    "continuous views do not support row security": "PostgreSQL has none on foreign tables",
    "continuous views do not support sequences in %s": "an identity column's; nextval() is a function",
    "continuous views do not support set-returning functions in %s": "PostgreSQL refuses them there, or they are taken out before",
    "continuous views do not support set-returning functions within a part of UNION ALL": "the part is a join by then",
    "continuous views do not support set-returning operators": "PostgreSQL makes none",
    "continuous views do not support what is joined here": "every kind that there is is named",
    "the aggregates of the view need too large a state": "128 of the largest fit",
}


def refusals(columns: int) -> list[tuple[str, str]]:
    """SQLSTATEs and statements in the table of so many columns."""
    reference = (REPOSITORY / "docs" / "reference.md").read_text()
    section = reference.split("### What is refused")[1].split("\n###")[0]
    rows = [row for line in section.splitlines() if line.startswith("| ") if len(row := line.split("|")) == columns][2:]
    assert all(re.search(r"`(SELECT|WITH|CREATE|ALTER|SET)", row[-3]) and row[-2].strip() for row in rows), rows
    return [(row[1].strip() if columns > 5 else "0A000", statement) for row in rows for statement in re.findall(r"`([^`]+)`", row[-3])]


STRING = r'"((?:[^"\\]|\\.)*)"'
CALL = r"""(?:[^;"']|"(?:[^"\\]|\\.)*"|'[^']+')*"""


def raised(path: Path) -> list[str]:
    """The messages of all errors that a source raises, as printf's formats."""
    text = re.sub(r'(?<!\\)"\s*"', "", path.read_text())
    found = []
    for call in re.findall(rf"\bereport\(\s*ERROR\b({CALL});", text):
        found += re.findall(rf"errmsg\({STRING}", call)
    for call in re.findall(rf"streamext_view_refuse\(({CALL});", text):
        if message := re.match(rf"\s*(?:psprintf\()?{STRING}(?: (JOIN_PLACE))?", call):
            found.append(f"continuous views do not support {message[1]}{'%s' if message[2] else ''}")
    found = [message.replace('\\"', '"') for message in found]
    return found


def pattern(message: str) -> str:
    return re.sub(r"%\w+|%zu", ".*", re.escape(message))


SOURCES = sorted(set((REPOSITORY / "src" / "view").glob("*.c")) | set((REPOSITORY / "src" / "sql").glob("ddl*.c")) - {REPOSITORY / "src" / "sql" / "ddl_stream.c"})
SOURCES += [REPOSITORY / "src" / "sink" / name for name in ("alert.c", "emit.c")]


def statement(text: str) -> str:
    return CONTINUOUS + text if text.startswith(("SELECT", "WITH")) else text


def type_instead(db: Database, way: list[str], hint: str) -> None:
    """All of it, and what it made is gone again."""
    with db.connection.transaction(force_rollback=True):
        for text in way:
            if text == "inner_view":
                found = re.search(r"CREATE VIEW inner_view WITH [^;]*", hint)
                assert found, hint
                text = found[0]
            db.execute(statement(text))
            if text.startswith("CREATE VIEW w "):
                db.execute("SELECT count(*) FROM w")


def needs(db: Database, extension: str) -> None:
    if not db.value("SELECT count(*) FROM pg_available_extensions WHERE name = %s", extension):
        pytest.skip(f"this build of PostgreSQL has no {extension}")


def all_that_they_name(db: Database) -> None:
    """What the statements of both tables read."""
    needs(db, "file_fdw")
    stream(db)
    tables(db)
    local_stream(db, "event_time 'ts'", name="s2")
    minute = f"{MINUTE} AS w"
    continuous(db, "minutes", f"SELECT device, {minute}, count(*) AS n FROM s GROUP BY device, w")
    continuous(db, "totals", "SELECT site, count(*) AS n FROM s GROUP BY site")
    continuous(db, "sliding", "SELECT site, count(*) AS n FROM s WHERE ts > now() - interval '1 min' GROUP BY site")
    continuous(db, "distincts", f"SELECT DISTINCT {minute}, count(*) AS n FROM s GROUP BY w, site")
    continuous(db, "limited", f"SELECT {minute}, count(*) AS n FROM s GROUP BY w LIMIT 3")
    continuous(db, "ranked", f"SELECT {minute}, rank() OVER (ORDER BY count(*)) AS r FROM s GROUP BY w")
    continuous(db, "rolled", "SELECT site, count(*) FROM s GROUP BY ROLLUP (streamext.tumble('1 min', ts), site)")
    continuous(db, "aged", f"SELECT {minute}, now() - max(ts) AS age FROM s GROUP BY w")
    db.execute("""CREATE VIEW barred WITH (security_barrier) AS SELECT * FROM s;
        CREATE TABLE keyed (device text PRIMARY KEY, line text); CREATE TABLE t (w timestamptz, n bigint); CREATE SEQUENCE numbers;
        CREATE TABLE numbered (site text, number bigint DEFAULT nextval('numbers')); CREATE TABLE sites (site text);
        CREATE TABLE ruled (w timestamptz, n bigint); CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO t VALUES (NEW.w, NEW.n);
        CREATE VIEW both_streams AS SELECT site FROM s UNION ALL SELECT site FROM s2;
        CREATE SERVER hooks FOREIGN DATA WRAPPER webhook OPTIONS (url 'http://127.0.0.1:9/'); CREATE FOREIGN TABLE hook (site text) SERVER hooks;
        CREATE FUNCTION looks_up(text) RETURNS bool STABLE LANGUAGE sql AS 'SELECT true';
        CREATE ROLE anybody; CREATE FUNCTION theirs() RETURNS interval IMMUTABLE LANGUAGE plpgsql AS $$BEGIN RETURN '1 min'; END$$;
        ALTER FUNCTION theirs() OWNER TO anybody""")
    continuous(db, "passed_on", "SELECT site FROM s", ", streamext.into = 'sites'")
    continuous(db, "copies", "SELECT device, date_trunc('hour', w) AS w, sum(n)::bigint AS n FROM minutes GROUP BY 1, 2")
    continuous(db, "derived", "SELECT site, ts FROM s")
    continuous(db, "nested", f"SELECT max(n) FROM ({BY_WINDOW}) q")
    db.execute("""CREATE VIEW warned WITH (streamext.alert) AS SELECT site, n FROM totals WHERE n > 5;
        CREATE SERVER topics FOREIGN DATA WRAPPER kafka OPTIONS (brokers '127.0.0.1:9');
        CREATE FOREIGN TABLE counted (site text, n bigint) SERVER topics OPTIONS (topic 'counted');
        CREATE FOREIGN TABLE changed (k text OPTIONS (metadata 'key'), site text, device text, n bigint) SERVER topics OPTIONS (topic 'changed');
        CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
        CREATE FOREIGN TABLE filed (site text) SERVER files OPTIONS (filename '/dev/null')""")


def test_the_tables_of_refusals(db: Database) -> None:
    """Each is refused and says what to do, and what it says can be typed; together they are all that is raised."""
    all_that_they_name(db)
    told = []  # the messages
    wrong = []
    try:
        tables = refusals(5) + refusals(6)
        instead = INSTEAD | INSTEAD_OTHER
        assert list(instead) == [refused for _, refused in tables]
        ways = [(code, refused, instead[refused]) for code, refused in tables]
        ways += [(code, refused, [way]) for code, refused, way in MANY]
        for code, refused, way in ways:
            try:
                refusal = db.refusal(statement(refused))
                told.append(refusal.splitlines()[0][6:])
                assert refusal.startswith(code) and "HINT: " in refusal, refusal
                type_instead(db, way, refusal.split("HINT: ")[1])
            except (AssertionError, psycopg.Error) as error:
                wrong.append((refused, str(error)))
        assert not wrong, "\n".join(f"{refused}: {error}" for refused, error in wrong)
    finally:
        db.execute("DROP FUNCTION theirs(); DROP ROLE anybody")
    missing = {message for source in SOURCES for message in raised(source) if not any(re.fullmatch(pattern(message), one) for one in told)}
    assert missing == set(ELSEWHERE), "\n".join(sorted(missing ^ set(ELSEWHERE)))


def test_aggregates_within_aggregates(db: Database) -> None:
    """Hint by hint, as it is typed: the innermost first."""
    stream(db)
    tables(db)
    first = db.refusal(CONTINUOUS + "SELECT max(m) FROM (SELECT n, count(*) AS m FROM (SELECT site, count(*) AS n FROM s GROUP BY site) a GROUP BY n) b")
    assert "GROUP BY site;" in first and "an ordinary view that names inner_view" in first
    db.execute(re.findall(r"CREATE VIEW inner_view WITH [^;]*", first)[0])
    db.execute("CREATE VIEW w AS SELECT max(m) FROM (SELECT n, count(*) AS m FROM inner_view a GROUP BY n) b")
    db.execute("CREATE VIEW by_minute AS SELECT streamext.tumble('1 min', ts) AS w, count(*) AS n FROM s GROUP BY w")
    second = db.refusal(CONTINUOUS + "SELECT date_trunc('hour', w) AS h, max(n) FROM by_minute GROUP BY h")
    db.execute(re.findall(r"CREATE VIEW inner_view2 WITH [^;]*", second)[0])
    assert "name inner_view2 in this one" in second
    db.execute(CONTINUOUS + "SELECT date_trunc('hour', w) AS h, max(n) FROM inner_view2 GROUP BY h")
    db.execute("DROP VIEW v")
    # by names of what stands around it
    for query in (
        "WITH a AS (SELECT * FROM s), m AS (SELECT site, count(*) AS n FROM a GROUP BY site) SELECT max(n) FROM m",
        f"SELECT max(n) FROM lines l, LATERAL (SELECT l.rank, {MINUTE} AS w, count(*) AS n FROM s WHERE s.device = l.device GROUP BY w) q",
        f"SELECT max(m) FROM lines l, LATERAL (SELECT max(n + l.rank) AS m FROM (SELECT {MINUTE} AS w, count(*) AS n FROM s GROUP BY w) r) q",
    ):
        assert db.refusal(CONTINUOUS + query).startswith("0A000"), query


def test_windows_of_too_many_steps(db: Database) -> None:
    """The hint has the form that works."""
    stream(db)
    for interval, options in (("209 days", ""), ("209 days 1 s", ""), ("300 days", ", streamext.step = '1 h'"), ("30 days", ", streamext.step = '1 h'")):
        view = "CREATE VIEW v WITH (streamext.continuous{}) AS SELECT count(*) FROM s WHERE ts > now() - {}"
        refusal = db.refusal(view.format(options, f"interval '{interval}'"))
        assert refusal.startswith("22023") and ("streamext.step" in refusal.splitlines()[0]) == bool(options), refusal
        found = re.search(r"HINT:  Write the interval in hours: (interval '[^']*')", refusal)
        assert found, refusal
        type_instead(db, [view.format(options, found[1])], "")
        if step := re.search(r"or set streamext.step to ('30 min')", refusal):
            type_instead(db, [view.format(f", streamext.step = {step[1]}", f"interval '{interval}'")], "")
    for query in ("WHERE ts > now() - interval '24 hours'", "WHERE ts > now() - interval '10 days' GROUP BY streamext.tumble('1 min', ts)"):
        view = "CREATE VIEW v WITH (streamext.continuous, streamext.step = '{}') AS SELECT count(*) FROM s {}"
        refusal = db.refusal(view.format("1 s", query))
        found = re.search(r"HINT:  Set streamext.step to a larger divisor of the length, such as '([^']*)'", refusal)
        if "GROUP BY" in query:
            assert "what is grouped by wider" in refusal, refusal
            type_instead(db, [f"SELECT count(*) FROM s {query}".replace("1 min", "2 min")], "")
        else:
            assert found, refusal
            type_instead(db, [view.format(found[1], query)], "")


def test_options_of_the_other_kind(db: Database) -> None:
    """A hint does not lead into the next error."""
    all_that_they_name(db)
    try:
        over = "Make an alert, a view over the continuous view"
        for refused, hint in (
            (WITH_OPTION.format("streamext.hold = '1 min'", "SELECT count(*) AS n FROM s"), over),
            ("ALTER VIEW minutes SET (streamext.hold = '1 min')", over),
            ("ALTER VIEW minutes SET (streamext.alert)", "Make the alert a view over the continuous view"),
            ("ALTER VIEW warned SET (streamext.retention = '1 h')", "Give it to the continuous view"),
            ("CREATE VIEW v WITH (streamext.hold = '1 min') AS SELECT site, n FROM totals WHERE n > 5", "Add streamext.alert"),
            ("ALTER VIEW both_streams SET (streamext.hold = '1 min')", "or with streamext.alert"),
        ):
            assert hint in db.refusal(refused), refused
        for option in ("alert", "hold"):
            db.execute(f"ALTER VIEW minutes RESET (streamext.{option})")
    finally:
        db.execute("DROP FUNCTION theirs(); DROP ROLE anybody")


def test_what_a_refusal_names(db: Database) -> None:
    """Of several reasons for one message that of the statement is in it."""
    stream(db)
    local_stream(db, "event_time 'ts'", name="s2")
    part = db.refusal(CONTINUOUS + "SELECT generate_series(1, 2) AS n FROM s UNION ALL SELECT 1 FROM s2")
    assert "set-returning functions within a part of UNION ALL" in part, part
    deep = db.refusal(CONTINUOUS + "SELECT count(*) FROM " + "(SELECT * FROM " * 257 + "s" + ") q" * 257)
    assert deep.startswith("54001") and "fewer subqueries" in deep, deep


def test_every_refusal_has_a_hint() -> None:
    """None is made without one that says what to do."""
    for source in (REPOSITORY / "src").glob("*/*.c"):
        text = source.read_text()
        calls = re.findall(r"streamext_view_refuse\((?:[^;\"]|\"(?:[^\"\\\\]|\\\\.)*\")*;", text)
        for call in calls:
            assert not re.search(r",\s*NULL\s*\);$", call), (source, call)
