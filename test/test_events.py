"""GET /views/SCHEMA.NAME/changes: whoever applies the events by the view's keys has the view, whenever he comes and goes."""

import json
import socket
from typing import Any

import pytest

from harness.database import Database
from harness.http import Listener, Web
from harness.streams import continuous
from harness.wait import wait_for


@pytest.fixture
def web(db: Database) -> Web:
    """The stream s (n, t) and the view v (t, c, total); ingest may read it, and rows come by INSERT."""
    server = Web(db)
    db.execute("CREATE SERVER IF NOT EXISTS local_server FOREIGN DATA WRAPPER local")
    db.execute("CREATE FOREIGN TABLE s (n int, t text) SERVER local_server")
    continuous(db, "v", "SELECT t, count(*) AS c, sum(n)::int AS total FROM s GROUP BY t HAVING sum(n) >= 0", ", streamext.emit_interval = '20 ms'")
    db.execute("GRANT SELECT ON v TO ingest")
    server.wait("listening")
    return server


def insert(web: Web, *rows: tuple[int, str]) -> None:
    for n, t in rows:
        web.db.execute("INSERT INTO s VALUES (%s, %s)", n, t)
    web.db.flush("s")


def view(web: Web, name: str = "v") -> list[Any]:
    return [row for (row,) in web.db.rows(f"SELECT to_jsonb({name}) FROM {name}")]


def watchers(web: Web) -> list[Any]:
    return web.db.rows("SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext watcher'")


def test_events_are_the_view(web: Web) -> None:
    insert(web, (1, "a"), (2, "b"))
    one = Listener(web, "public.v", ["t"])
    assert one.status == 200 and one.headers["content-type"] == "text/event-stream"
    one.wait(view(web))
    assert one.ops == ["reset", "upsert", "upsert"]
    insert(web, (5, "a"), (7, "c"))
    one.wait(view(web))
    insert(web, (-100, "b"))
    one.wait(view(web))
    assert "b" not in [row["t"] for row in one.rows.values()] and one.ops[-1] == "delete" and "reset" not in one.ops[1:]
    one.close()
    assert web.request("GET", "/views/public.v").json == view(web) or len(view(web)) == 2


def test_who_comes_back_goes_on(web: Web) -> None:
    insert(web, (1, "a"), (2, "b"), (3, "c"))
    one = Listener(web, "public.v", ["t"])
    one.wait(view(web))
    one.close()
    insert(web, (1, "a"), (-50, "b"))
    again = Listener(web, "public.v", ["t"], last=one.last)
    again.rows = one.rows
    again.wait(view(web))
    assert sorted(again.ops) == ["delete", "upsert"]
    token = web.db.rows("SELECT token FROM streamext.changes('v')")[-1][0]
    from_sql = Listener(web, "public.v", ["t"], last=token)
    insert(web, (4, "d"))
    from_sql.wait([row for row in view(web) if row["t"] == "d"])
    for wrong in ("nothing", "0000000000000001-1", token + "0"):
        anew = Listener(web, "public.v", ["t"], last=wrong)
        anew.wait(view(web))
        assert anew.ops[0] == "reset"
        anew.close()


def test_rights(web: Web) -> None:
    assert Listener(web, "public.v", ["t"], token=None).status == 401
    assert Listener(web, "public.v", ["t"], token="wrong").status == 401
    assert Listener(web, "public.v", ["t"], token="nobody-token").status == 403
    assert Listener(web, "public.nothing", ["t"]).status == 404
    assert Listener(web, "nothing.v", ["t"]).status == 404
    assert Listener(web, "pg_catalog.pg_stat_activity", []).status == 400
    assert web.request("GET", "/views/public.v/changes?t=a").status == 400
    continuous(web.db, "keyless", "SELECT count(*) AS c FROM s GROUP BY t")
    web.db.execute("GRANT SELECT ON keyless TO ingest")
    refused = Listener(web, "public.keyless", [])
    assert refused.status == 400 and "not available" in refused.error["error"]
    web.db.execute("GRANT SELECT ON v TO nobody")
    insert(web, (1, "a"))
    two = [Listener(web, "public.v", ["t"], token=f"{role}-token") for role in ("ingest", "nobody")]
    for listener in two:
        listener.wait(view(web))
    web.db.execute("REVOKE SELECT ON v FROM ingest")
    insert(web, (1, "a"))
    two[0].wait_end()
    assert Listener(web, "public.v", ["t"]).status == 403
    two[1].wait(view(web))
    web.db.execute("DROP USER MAPPING FOR nobody SERVER web")
    two[1].wait_end()
    assert Listener(web, "public.v", ["t"], token="nobody-token").status == 401


def test_columns_that_are_named_as_we_name_views(web: Web) -> None:
    """to_jsonb(v) of a view v with a column v is that column."""
    continuous(web.db, "named", "SELECT t AS v, count(*) AS q FROM s GROUP BY t", ", streamext.emit_interval = '20 ms'")
    web.db.execute("CREATE VIEW told WITH (streamext.alert) AS SELECT v, q FROM named")
    web.db.execute("GRANT SELECT ON named TO ingest")
    insert(web, (1, "a"))
    row = {"v": "a", "q": 1}
    Listener(web, "public.named", ["v"]).wait([row])
    assert web.db.rows("SELECT row FROM streamext.changes('named') WHERE op = 'upsert'") == [(row,)]
    assert web.request("GET", "/views/public.named").json == [row]
    assert web.db.rows("SELECT row FROM streamext.alert_events WHERE view::text = 'told'") == [(row,)]


def test_each_role_sees_its_own(web: Web) -> None:
    continuous(web.db, "mine", "SELECT t, current_user::text AS who FROM s GROUP BY t", ", streamext.emit_interval = '20 ms'")
    web.db.execute("GRANT SELECT ON mine TO ingest, nobody")
    insert(web, (1, "a"))
    for role in ("ingest", "nobody"):
        listener = Listener(web, "public.mine", ["t"], token=f"{role}-token")
        listener.wait([{"t": "a", "who": role}])
        listener.close()


def test_a_view_that_is_made_anew(web: Web) -> None:
    insert(web, (1, "a"))
    listener = Listener(web, "public.v", ["t"])
    listener.wait(view(web))
    web.db.execute("DROP VIEW v")
    listener.wait_end()
    assert Listener(web, "public.v", ["t"]).status == 404
    continuous(web.db, "v", "SELECT t, max(n) AS peak FROM s GROUP BY t")
    web.db.execute("GRANT SELECT ON v TO ingest")
    insert(web, (9, "z"))
    again = Listener(web, "public.v", ["t"], last=listener.last)
    again.wait(view(web))
    assert again.ops[0] == "reset"


def test_many_listeners_and_one_reading(web: Web) -> None:
    insert(web, *((n, f"key {n}") for n in range(20)))
    everybody = [Listener(web, "public.v", ["t"]) for _ in range(200)]
    for listener in everybody:
        listener.wait(view(web))
    assert len(watchers(web)) == 1
    insert(web, (1000, "key 3"), (5, "new"), (-1000, "key 4"))
    expected = view(web)
    for listener in everybody:
        listener.wait(expected)
    assert web.db.value("SELECT connections FROM streamext.gateways") >= 200
    for listener in everybody:
        listener.close()
    insert(web, (5, "new"))
    late = Listener(web, "public.v", ["t"])
    late.wait(view(web))


def test_one_role_leaves_places_for_others(web: Web) -> None:
    """It may have as many as it leaves: 32 of 64, the next one 16."""
    names = [f"w{i}" for i in range(33)]
    web.db.execute("; ".join(
        f"CREATE VIEW {name} WITH (streamext.continuous) AS SELECT t, count(*) AS c FROM s GROUP BY t; GRANT SELECT ON {name} TO ingest" for name in names
    ))  # fmt: skip
    web.db.execute("GRANT SELECT ON v TO nobody")
    insert(web, (1, "a"))
    everything = [Listener(web, f"public.{name}", ["t"]) for name in names]
    assert [listener.status for listener in everything] == [200] * 32 + [503]
    other = Listener(web, "public.v", ["t"], token="nobody-token")
    other.wait(view(web))


def test_a_slow_role_holds_up_nobody(web: Web) -> None:
    """Its views wait for each other, and those of others do not wait for them."""
    names = [f"z{i}" for i in range(6)]
    web.db.execute("; ".join(
        f"CREATE VIEW {name} WITH (streamext.continuous, streamext.emit_interval = '1 ms') AS "
        f"SELECT t, count(*) AS c, pg_sleep(0.1)::text AS z FROM s GROUP BY t; GRANT SELECT ON {name} TO ingest" for name in names
    ))  # fmt: skip
    web.db.execute("GRANT SELECT ON v TO nobody")
    insert(web, (1, "a"))
    slow = [Listener(web, f"public.{name}", ["t"]) for name in names]
    fast = Listener(web, "public.v", ["t"], token="nobody-token")
    fast.wait(view(web))
    for listener in slow:
        listener.take()
        listener.ops.clear()
    updates = 25
    for _ in range(updates):
        insert(web, (1, "a"))
        fast.wait(view(web))
    for listener in slow:
        listener.take()
    assert sum(len(listener.ops) for listener in slow) < updates
    for listener in slow:
        listener.wait(view(web, names[0]))


def test_who_does_not_read_begins_anew(web: Web) -> None:
    wide = "x" * 2000
    continuous(web.db, "wide", "SELECT n, count(*) AS c, max(t) AS t FROM s GROUP BY n", ", streamext.emit_interval = '20 ms'")
    web.db.execute("GRANT SELECT ON wide TO ingest")
    web.db.execute("INSERT INTO s SELECT n, %s FROM generate_series(1, 300) AS n", wide)
    web.db.flush("s")
    idle, reading = Listener(web, "public.wide", ["n"]), Listener(web, "public.wide", ["n"])
    reading.wait(view(web, "wide"))
    for _ in range(8):
        web.db.execute("INSERT INTO s SELECT n, %s FROM generate_series(1, 300) AS n", wide)
        web.db.flush("s")
        reading.wait(view(web, "wide"))
    assert "reset" not in reading.ops[1:]
    idle.wait(view(web, "wide"))
    assert idle.ops.count("reset") == 2 and len(idle.ops) < len(reading.ops)


def test_restart_of_the_server(web: Web) -> None:
    insert(web, (1, "a"))
    listener = Listener(web, "public.v", ["t"])
    listener.wait(view(web))
    web.db.server.restart()
    web.db.connection = web.db.connect()
    listener.wait_end()
    wait_for(lambda: web.state() == "listening")
    again = Listener(web, "public.v", ["t"], last=listener.last)
    again.rows = {"stale": {}}
    again.wait(view(web))
    assert again.ops[0] == "reset"


def test_bytes_are_events(web: Web) -> None:
    """As they come, with a client of its own that ends in the middle of them."""
    insert(web, (1, 'say "\n\r" \u2028 ü'))
    with socket.create_connection(("127.0.0.1", web.port), timeout=20) as connection:
        connection.sendall(b"GET /views/public.v/changes HTTP/1.0\r\nAuthorization: Bearer ingest-token\r\n\r\n")
        text = b""
        while not text.endswith(b"}\n\n"):
            text += connection.recv(65536)
    head, body = text.split(b"\r\n\r\n", 1)
    assert b"200" in head and b"no-store" in head
    blocks = body.decode().split("\n\n")
    assert blocks[0] == ":\nretry: 2000" and blocks[1].startswith("event: reset\nid: ")
    assert json.loads(blocks[2].split("data: ", 1)[1])["t"] == 'say "\n\r" \u2028 ü'
    insert(web, (1, "a"))
    Listener(web, "public.v", ["t"]).wait(view(web))


KINDS = """SELECT t, min(n)::smallint AS small, min(n) AS int_, min(n)::bigint * 1000000007 AS big, min(n)::real / 3 AS f4, min(n)::float8 / 3 AS f8,
    min(n)::float8 * 1e20 AS large, -min(n)::float8 * 0 AS minus_nought, CASE WHEN min(n) > 1 THEN 'NaN' ELSE '-Infinity' END::float8 AS odd,
    min(n)::numeric(20, 4) AS n, 'NaN'::numeric AS nan, min(n) > 1 AS yes, 'x '::char(4) AS padded, min(t)::name AS name, NULL::text AS none,
    date '2024-05-01' + min(n) AS day, 'infinity'::timestamptz AS ever, timestamp '2024-05-01 10:00:00.5' AS plain, time '10:00' AS noon, interval '1 day' AS span,
    ARRAY[min(n), NULL] AS list, ROW(min(n), min(t))::pair AS pair, json '{"b": 1,  "a": [1e3]}' AS j, jsonb '{"b": 1, "a": "ü\\n"}' AS b, decode('00ff', 'hex') AS bytes,
    '10.0.0.1'::inet AS host, int4range(1, min(n) + 2) AS "range", 'happy'::mood AS mood, 7::even AS "a domain", '0 0 1'::oidvector AS oids
    FROM s GROUP BY t"""


def test_rows_are_the_text_of_to_jsonb(web: Web) -> None:
    """Letter for letter, whatever the types of columns are."""
    web.db.execute("CREATE TYPE pair AS (a int, b text); CREATE TYPE mood AS ENUM ('happy'); CREATE DOMAIN even AS int; SET timezone = 'UTC'")
    views = {"kinds": KINDS, "keys": "SELECT n::numeric(9, 2) AS a, n::float8 / 7 AS b, t, count(*) AS c FROM s GROUP BY 1, 2, 3"}
    for name, query in views.items():
        continuous(web.db, name, query)
        web.db.execute(f"GRANT SELECT ON {name} TO ingest")
    insert(web, *enumerate(["plain", 'say "\\\n\r\t\b\f\x01\x7f"', "ü\u2028", "", "null"], 1))
    for name in views:
        told = [row for (row,) in web.db.rows(f"SELECT row::text FROM streamext.changes('{name}') WHERE op = 'upsert'")]
        wanted = sorted(row for (row,) in web.db.rows(f"SELECT to_jsonb({name}.*)::text FROM {name}"))
        assert sorted(told) == wanted and len(wanted) == 5
        listener = Listener(web, f"public.{name}", ["t"])
        listener.wait(view(web, name))
        assert sorted(listener.data) == sorted(["null", *wanted])
