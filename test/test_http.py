"""The receiver http: what is POSTed to a server's gateway and answered 204 is in its stream, whatever happens."""

import base64
import contextlib
import csv
import gzip
import hashlib
import hmac
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from harness.database import Database, temporary_database
from harness.http import Web
from harness.meanwhile import meanwhile
from harness.postgres import Postgres
from harness.server import free_port
from harness.streams import continuous
from harness.wait import wait_for


@pytest.fixture
def web(db: Database) -> Web:
    """A stream s (n, t) at /s, and the view v (c, total) over it."""
    server = Web(db)
    server.stream()
    continuous(db, "v", "SELECT count(*) AS c, sum(n)::bigint AS total FROM s")
    return server


def counted(web: Web) -> tuple[int, int | None]:
    web.db.flush("s")
    return web.db.rows("SELECT c, total FROM v")[0]


def test_bodies_are_cut_into_records(web: Web) -> None:
    assert web.post({"n": 1}).status == 204
    assert web.post([{"n": 2}, {"n": 3, "t": "], [{\\\""}, {"n": 4}]).status == 204
    assert web.post('{"n": 5}\n\n{"n": 6}\r\n{"n": 7}', type="application/x-ndjson").status == 204
    assert web.post('{"n": 8}', type=None).status == 204
    assert web.post(" [ ] ").status == 204
    assert web.post("", type="application/x-ndjson").status == 204
    assert counted(web) == (8, 36)
    assert web.db.rows("SELECT n FROM s WHERE t IS NOT NULL") == [(3,)]


def test_what_is_no_record_is_a_dead_letter(web: Web) -> None:
    assert web.post('{"n": 1}\n{"n": "x"}\nnothing\n{"n": 2}', type="application/x-ndjson").status == 204
    assert web.post('[{"n": 3}, {"n": tru}, 7]').status == 204
    assert counted(web) == (3, 6)
    letters = web.db.rows("SELECT convert_from(payload, 'UTF8') FROM streamext.dead_letters ORDER BY position")
    assert [letter for (letter,) in letters] == ['{"n": "x"}', "nothing", '{"n": tru}', "7"]


def test_a_dead_letter_shows_headers_and_no_key(db: Database) -> None:
    """What a request leaves with its records is packed where other connectors have the key; a retry needs it."""
    web = Web(db)
    web.stream("n int, page int OPTIONS (metadata 'query page'), headers jsonb OPTIONS (metadata 'headers')")
    continuous(db, "v", "SELECT n, page, headers->>'x-a' AS a, count(*) AS c FROM s GROUP BY 1, 2, 3")
    assert web.post('{"n": "x"}', path="/s?page=3", headers={"X-A": "1"}).status == 204
    db.flush("s")
    shown = db.rows("SELECT topic, key, headers->>'x-a', payload_text FROM streamext.dead_letters")
    assert shown == [("/s", None, "1", '{"n": "x"}')]
    db.execute("ALTER FOREIGN TABLE s ALTER n OPTIONS (ADD on_bad_value 'null')")
    db.execute("SELECT streamext.retry_dead_letters('s')")
    wait_for(lambda: db.rows("TABLE v") == [(None, 3, "1", 1)], what="the retried record")


def test_journal_none_says_what_it_does_not_keep(db: Database) -> None:
    web = Web(db)
    notices: list[str] = []
    db.connection.add_notice_handler(lambda notice: notices.append(notice.message_primary or ""))
    web.stream("t text", options="journal 'none'")
    assert any("a crash may lose records" in notice for notice in notices)
    continuous(db, "v", "SELECT count(*) AS c FROM s")
    db.execute("SELECT streamext.pause('v')")
    for _ in range(12):
        assert web.post("\n".join([json.dumps({"t": "x" * 1_000_000})] * 6), type="application/x-ndjson").status == 204
    wait_for(lambda: db.value("SELECT rows_in FROM streamext.streams") == 72)
    assert web.post({"t": "x"}).status == 204
    wait_for(lambda: db.value("SELECT journal_bytes FROM streamext.stream_partitions") < 40_000_000, what="trimmed journal")


@pytest.mark.parametrize(
    "body, record",
    [("", 1), ("[", 1), ('[{"n": 1}, {"n": 2}', 2), ('[{"n": 1},, {"n": 2}]', 2), ('{"n": 1', 1), ('[{"n": 1}] 2', 2), ("no", 1)],
)
def test_what_cannot_be_cut_is_refused_whole(web: Web, body: str, record: int) -> None:
    answer = web.post(body)
    assert answer.status == 400
    assert set(answer.json) == {"error", "hint", "record"} and answer.json["record"] == record
    assert counted(web) == (0, None)


def test_csv(db: Database) -> None:
    web = Web(db)
    web.stream("n int, t text", format="csv")
    continuous(db, "v", "SELECT count(*) AS c, sum(n)::bigint AS total FROM s")
    assert web.post('1,one\r\n2,"two, or\nmore"\n3,three\n', type="text/csv").status == 204
    assert web.post('4,"open\n', type="text/csv").status == 400
    assert web.post({"n": 1}).status == 415
    assert counted(web) == (3, 6)
    assert db.rows("SELECT t FROM s ORDER BY n")[1] == ("two, or\nmore",)


def test_who_may_send(web: Web) -> None:
    for token in (None, "", "wrong", "ingest-token2"):
        answer = web.post({"n": 1}, token=token)
        assert answer.status == 401 and "Bearer" in answer.headers["www-authenticate"] and answer.json["error"]
    assert web.post({"n": 1}, token="nobody-token").status == 403
    for login, status in (("ingest:ingest-token", 204), ("nobody:ingest-token", 401), ("ingest:x", 401), ("ingest", 401)):
        basic = "Basic " + base64.b64encode(login.encode()).decode()
        assert web.post({"n": 1}, token=None, headers={"Authorization": basic}).status == status
    web.db.execute("REVOKE INSERT ON s FROM ingest")
    assert web.post({"n": 1}).status == 403
    web.db.execute("GRANT INSERT ON s TO nobody")
    assert web.post({"n": 1}, token="nobody-token").status == 204
    web.db.execute("DROP USER MAPPING FOR nobody SERVER web")
    assert web.post({"n": 1}, token="nobody-token").status == 401
    assert counted(web) == (2, 2)


def test_anonymous_role(web: Web) -> None:
    web.db.execute("ALTER SERVER web OPTIONS (ADD anonymous_role 'ingest')")
    wait_for(lambda: web.post({"n": 1}, token=None).status == 204)
    assert web.post({"n": 1}, token="wrong").status == 401
    assert counted(web) == (1, 1)


def test_paths_and_methods(web: Web) -> None:
    assert web.post({}, path="/nothing").status == 404
    answer = web.request("PUT", "/s", "{}")
    assert answer.status == 405 and answer.headers["allow"] == "POST"
    web.db.execute("CREATE FOREIGN TABLE plain (n int) SERVER web OPTIONS (format 'json')")
    web.db.execute("GRANT INSERT ON plain TO ingest")
    assert web.post({"n": 1}, path="/public.plain").status == 204
    assert web.db.refusal(
        "CREATE FOREIGN TABLE other (n int) SERVER web OPTIONS (format 'json', path '/s')"
    ).startswith("42710")


def test_types_and_encodings_that_are_not_known(web: Web) -> None:
    assert web.post({"n": 1}, type="application/json; charset=latin1").status == 415
    assert web.post({"n": 1}, type="application/json; charset=UTF-8").status == 204
    assert web.post({"n": 1}, type="text/csv").status == 415
    assert web.post({"n": 1}, headers={"Content-Encoding": "br"}).status == 415


def test_packed_bodies(db: Database) -> None:
    web = Web(db, "max_body '100kB'")
    web.stream()
    continuous(db, "v", "SELECT count(*) AS c, sum(n)::bigint AS total FROM s")
    body = gzip.compress(b'{"n": 1}\n') + gzip.compress(b'{"n": 2}\n')
    gzipped = {"Content-Encoding": "gzip"}
    assert web.post(body, type="application/x-ndjson", headers=gzipped).status == 204
    assert web.post(body[:-3], type="application/x-ndjson", headers=gzipped).status == 400
    assert web.post(b"nothing packed", type="application/x-ndjson", headers=gzipped).status == 400
    bomb = gzip.compress(b'{"n": 1}\n' * 10_000_000)
    assert len(bomb) > 100_000 or web.post(bomb, type="application/x-ndjson", headers=gzipped).status == 413
    small_bomb = gzip.compress(b" " * 5_000_000)
    assert len(small_bomb) < 100_000
    assert web.post(small_bomb, type="application/x-ndjson", headers=gzipped).status == 413
    assert web.post(b" " * 110_000, type="application/x-ndjson").status == 413
    assert counted(web) == (2, 3)


def test_chunked_bodies_have_the_same_bound(db: Database) -> None:
    web = Web(db, "max_body '1kB'")
    web.stream()
    head = b"POST /s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ingest-token\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b" 413 " in web.raw(head + b"800\r\n" + b" " * 0x800 + b"\r\n0\r\n\r\n").split(b"\r\n")[0]
    assert b" 204 " in web.raw(head + b'8\r\n{"n": 1}\r\n0\r\n\r\n').split(b"\r\n")[0]


SMUGGLED = b'POST /s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ingest-token\r\nContent-Length: 8\r\n\r\n{"n": 7}'
HEAD = b"POST /s HTTP/1.1\r\nAuthorization: Bearer ingest-token\r\n"


UNCLEAR = [
    HEAD + b'Host: x\r\nContent-Length: 8\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: 8\r\nContent-Length: 80\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: 8\r\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: +8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: -8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n8\r\n{"n": 1}\r\n0\r\n\r\n' + SMUGGLED,
    HEAD + b'Host: x\r\nTransfer-Encoding: xchunked\r\n\r\n8\r\n{"n": 1}\r\n0\r\n\r\n' + SMUGGLED,
    HEAD + b'Host: x\r\nHost: y\r\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Content-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host : x\r\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\n Content-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"n": 1}\r\n0\r\n\r\n' + SMUGGLED,
    HEAD + b'Host: x\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{"n": 1}XX0\r\n\r\n' + SMUGGLED,
    HEAD + b'Host: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nx' + SMUGGLED,
    HEAD + b'Host: x\r\nTransfer-Encoding : chunked\r\n\r\n8\r\n{"n": 1}\r\n0\r\n\r\n' + SMUGGLED,
    HEAD + b'Host: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n8\r\n{"n": 1}\r\n0\r\n\r\n' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: 99999999999999999999999\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: 8\x001\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: \r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nX: a\r\n b\r\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nX: a\rContent-Length: 3\r\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nX: a\0b\r\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nX: a\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: 8\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Length: 8\r\n\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nNonsense\r\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b'Host: x\r\nContent-Encoding: gzip\r\nContent-Encoding: zstd\r\nContent-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    HEAD + b"Host: x\r\n" + b"".join(b"X%d: y\r\n" % n for n in range(400)) + b'Content-Length: 8\r\n\r\n{"n": 1}' + SMUGGLED,
    b"hello\r\n\r\n",
    b"POST /s x HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 300 + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /s HTTP/1.2\r\nHost: x\r\n\r\n",
]


def test_requests_that_are_not_clear(web: Web) -> None:
    """One answer, whoever gives it, with a body that names the cause."""
    for request in UNCLEAR:
        head, body = web.raw(request).split(b"\r\n\r\n")
        assert re.match(rb"HTTP/1\.1 (400|413|431|505) ", head) and b"Content-Type: application/json" in head, request
        assert head.count(b"HTTP/1.") == 1 and set(json.loads(body)) == {"error", "hint", "record"}, request
    assert counted(web) == (0, None)


def test_who_sends_a_body_sees_why_it_is_refused(web: Web) -> None:
    """A connection that ends with something unread is reset."""
    body = b" " * 30_000_000
    assert web.post(body).status == 413
    assert web.post(body[:10_000_000], token="wrong").status == 401
    assert web.post(body[:10_000_000], path="/nothing").status == 404
    assert web.raw(SMUGGLED[:-18] + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n").startswith(b"HTTP/1.1 413 ")
    assert counted(web) == (0, None)


def test_nothing_follows_a_body_in_chunks(web: Web) -> None:
    """The library takes chunks with bare LFs, and others may not."""
    answers = web.raw(HEAD + b'Host: x\r\nTransfer-Encoding: chunked\r\n\r\n8;\n{"n": 1}\r\n0\r\n\r\n' + SMUGGLED)
    assert answers.count(b"HTTP/1.1 ") == 1 and b"\r\nConnection: close\r\n" in answers
    assert counted(web) == (1, 1)


def test_heads_in_pieces(web: Web) -> None:
    """What is refused by where a head's parts lie must not depend on how they came."""
    head = HEAD + b"Host: x\r\nX-Long: " + b"y" * 10_000 + b"\r\nX-Empty:\r\nX-Blank:  a b \r\nContent-Length: 8\r\n\r\n" + b'{"n": 1}'
    for size in (7, 1000, 1460, 8_000):
        with socket.create_connection(("127.0.0.1", web.port), timeout=10) as sender:
            for at in range(0, len(head), size) if size > 7 else [0, *range(1, 120), *range(len(head) - 90, len(head))]:
                end = at + size if size > 7 else {0: 1, 119: len(head) - 90}.get(at, at + 1)
                sender.sendall(head[at:end])
            assert sender.recv(100).startswith(b"HTTP/1.1 204 ")
    assert counted(web) == (4, 4)


def test_many_records_of_few_bytes(db: Database) -> None:
    """6 kB of gzip are 3 million records of 9 bytes each: of those that come together only as many are held as there is room for, which is not all of these."""
    web = Web(db)
    web.stream(format="text", columns="t text")
    db.execute("SELECT streamext.pause('s')")
    body = gzip.compress(b"[1" + b",1" * 3_000_000 + b"]")
    head = f"POST /s HTTP/1.1\r\nHost: web\r\nAuthorization: Bearer ingest-token\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"
    connections = [socket.create_connection(("127.0.0.1", web.port), timeout=90) for _ in range(12)]
    for connection in connections:
        connection.sendall(head.encode() + body)
    answers = [connection.recv(65536)[9:12] for connection in connections]
    assert set(answers) <= {b"204", b"503"} and b"204" in answers
    assert web.post('["x"]').status == 204
    pid = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'streamext gateway%' AND datname = current_database()")
    peak = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 450_000, peak


def test_pipelining_and_100_continue(web: Web) -> None:
    def one(n: int, more: str = "") -> bytes:
        return (
            f"POST /s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ingest-token\r\n{more}Content-Length: 8\r\n\r\n"
            f'{{"n": {n}}}'
        ).encode()

    def all_three(answers: bytes) -> bool:
        return answers.count(b"HTTP/1.1 204 ") == 3

    assert all_three(web.raw(one(1) + one(2) + one(3, "Expect: 100-continue\r\n"), until=all_three))
    assert counted(web) == (3, 6)


def test_slow_senders(db: Database) -> None:
    web = Web(db, "header_timeout '300 ms'")
    web.stream()
    answer = web.raw(b"POST /s HTTP/1.1\r\nHost")
    assert answer.startswith(b"HTTP/1.1 408 ") and json.loads(answer.split(b"\r\n\r\n")[1])["error"]
    head = b"POST /s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ingest-token\r\nContent-Length: 8\r\n\r\n"
    assert web.raw(head + b'{"n"').startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", web.port), timeout=10) as dribble:
        with pytest.raises(OSError):
            for byte in b"POST /s HTTP/1.1\r\n" + b"x" * 10_000:
                dribble.sendall(bytes([byte]))
                time.sleep(0.02)
    wait_for(lambda: answers(web))  # on a busy machine we are slow ourselves


def test_who_does_not_read_his_answer(db: Database) -> None:
    web = Web(db, "header_timeout '100 ms'")
    web.stream()
    db.execute("CREATE VIEW long AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 20000); GRANT SELECT ON long TO ingest")

    def asked(lazy: socket.socket) -> bool:
        """Not where we were too slow ourselves."""
        with contextlib.suppress(OSError):
            lazy.sendall(b"GET /views/public.long HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ingest-token\r\n\r\n")
            return lazy.recv(12) == b"HTTP/1.1 200"
        return False

    def read() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return len(web.request("GET", "/views/public.long").json) == 20_000
        return False

    with contextlib.ExitStack() as sockets:
        wait_for(lambda: asked(sockets.enter_context(socket.create_connection(("127.0.0.1", web.port)))), what="an answer")
        wait_for(lambda: db.value("SELECT connections FROM streamext.gateways") == 0, what="end of the connection")
    wait_for(read, what="the whole answer")


def test_a_role_does_not_take_all_readers(web: Web) -> None:
    """By a view that it keeps locked; monitoring is another role's."""
    web.db.execute("CREATE VIEW held AS SELECT 1 AS x; GRANT SELECT ON held TO ingest")
    with web.db.connect(autocommit=False) as holder, ThreadPoolExecutor(5) as pool:
        holder.execute("LOCK TABLE held")
        asked = [pool.submit(web.request, "GET", "/views/public.held") for _ in range(5)]
        waiting = "SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass AND NOT granted"
        wait_for(lambda: web.db.value(waiting) >= 4, what="readers that wait")
        assert web.request("GET", "/metrics", token="nobody-token").status == 200
        holder.rollback()
        assert sorted(answer.result().status for answer in asked) == [200, 200, 200, 200, 503]


def test_metadata(db: Database) -> None:
    web = Web(db)
    web.stream(
        "n int, path text OPTIONS (metadata 'path'), ip inet OPTIONS (metadata 'remote_address'),"
        "q int OPTIONS (metadata 'query page'), agent text OPTIONS (metadata 'header User-Agent'),"
        "headers jsonb OPTIONS (metadata 'headers'), at timestamptz OPTIONS (metadata 'timestamp')"
    )
    assert web.post([{"n": 1}, {"n": 2}], path="/s?page=7&x=%20", headers={"User-Agent": "me", "X-A": "1", "Cookie": "c"}).status == 204
    db.flush("s")
    rows = db.rows("SELECT n, path, ip::text, q, agent, headers, at > now() - interval '1 min' FROM s ORDER BY n")
    assert [row[0] for row in rows] == [1, 2]
    assert rows[0][1:5] == ("/s", "127.0.0.1/32", 7, "me") and rows[0][6]
    headers = rows[0][5]
    assert headers["user-agent"] == "me" and headers["x-a"] == "1" and not {"authorization", "cookie"} & headers.keys()


def test_signatures(pg: Postgres, db: Database) -> None:
    (pg.data / "sign.secret").write_text("very secret\n")
    os.chmod(pg.data / "sign.secret", 0o644)
    web = Web(db)
    web.stream(options="signature_header 'X-Sign', signature_secret_file 'sign.secret'")
    web.stream(
        options="signature_header 'X-Sign', signature_secret_file 'sign.secret', signature_scheme 'hmac-sha256-timestamp'",
        name="st",
        path="/st",
    )
    body = '{"n": 1}'

    def sign(text: str) -> str:
        return hmac.new(b"very secret", text.encode(), hashlib.sha256).hexdigest()

    assert web.post(body, headers={"X-Sign": "sha256=" + sign(body)}).status == 204
    assert web.post(body).status == 401
    assert web.post(body, headers={"X-Sign": "sha256=" + sign(body + " ")}).status == 401
    now = int(time.time())
    for t, status in ((now, 204), (now - 400, 401), (now + 400, 401)):
        assert web.post(body, path="/st", headers={"X-Sign": f"t={t},v1={sign(f'{t}.{body}')}"}).status == status
    assert web.post(body, path="/st", headers={"X-Sign": f"t={now},v1={sign(body)}"}).status == 401


def test_wait_visible(web: Web) -> None:
    for n in range(1, 20):
        assert web.post({"n": 1}, path="/s?wait=visible").status == 204
        assert web.db.value("SELECT c FROM v") == n
    assert web.post({"n": 1}, path="/s?wait=never").status == 400
    web.db.execute("ALTER SERVER web OPTIONS (ADD wait_timeout '100 ms')")
    web.db.execute("SELECT streamext.pause('s')")
    wait_for(lambda: web.post({"n": 1}, path="/s?wait=visible").status == 202)


def test_idempotency_keys(web: Web) -> None:
    def post(n: int, key: str, token: str = "ingest-token") -> int:
        return web.post([{"n": n}] * 2, headers={"Idempotency-Key": key}, token=token).status

    assert post(1, "a") == 204 and post(1, "a") == 204 and post(2, "a") == 422 and post(2, "b") == 204
    web.db.execute("GRANT INSERT ON s TO nobody")
    assert post(4, "a", "nobody-token") == 204
    assert web.post("[", headers={"Idempotency-Key": "c"}).status == 400
    assert post(8, "c") == 204
    assert counted(web) == (8, 30)
    gateway = web.db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext gateway' AND datname = current_database()")
    web.db.execute("SELECT pg_terminate_backend(%s)", gateway)
    wait_for(lambda: web.db.rows("SELECT 1 FROM pg_stat_activity WHERE pid = %s", gateway) == [])
    web.wait("listening")
    assert post(1, "a") == 204 and post(2, "a") == 422 and post(16, "d") == 204
    assert counted(web) == (10, 62)


def test_views_are_read(web: Web) -> None:
    db = web.db
    continuous(db, "by_n", "SELECT n, count(*) AS c, max(t) AS t FROM s GROUP BY n")
    assert web.post([{"n": n % 3, "t": 'a,"b'} for n in range(10)], path="/s?wait=visible").status == 204

    def get(path: str, accept: str = "application/json", token: str = "ingest-token") -> Any:
        return web.request("GET", path, headers={"Accept": accept}, token=token)

    assert get("/views/public.by_n").status == 403
    db.execute("GRANT SELECT ON by_n TO ingest")
    answer = get("/views/public.by_n")
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    rows = db.rows("SELECT n, c, t FROM by_n ORDER BY n")
    assert sorted((row["n"], row["c"], row["t"]) for row in answer.json) == rows
    assert get("/views/public.by_n?n=1").json == [{"n": 1, "c": 3, "t": 'a,"b'}]
    assert get("/views/public.by_n?n=7").json == []
    assert len(get("/views/public.by_n?limit=2").json) == 2
    lines = get("/views/public.by_n", "application/x-ndjson").body.splitlines()
    assert sorted(json.loads(line)["n"] for line in lines) == [0, 1, 2]
    read = list(csv.reader(get("/views/public.by_n", "text/csv").body.decode().splitlines()))
    assert read[0] == ["n", "c", "t"] and sorted(read[1:]) == [[str(value) for value in row] for row in rows]
    json_, ndjson, csv_ = "application/json", "application/x-ndjson", "text/csv; charset=utf-8; header=present"
    for accept, answered in (
        ("text/csv;q=0.1, application/json", json_), ("application/x-ndjson;q=0.5,*/*;q=0.1", ndjson), ("Text/CSV; header=present ;Q=0.9, */*;q=0.8", csv_),
        ("application/json, text/csv", json_), ("text/csv, application/json", csv_), ("text/csv;q=0", json_), ("text/html,application/xml;q=0.9,*/*;q=0.8", json_),
        ("image/text/csv", json_), ("", json_),
    ):  # fmt: skip
        assert get("/views/public.by_n", accept).headers["content-type"] == answered, accept
    for path, status in (
        ("/views/public.nothing", 404), ("/views/by_n", 404), ("/views/public.s", 404), ("/views/public.by_n?x=1", 400),
        ("/views/public.by_n?n=one", 400), ("/views/public.by_n?limit=-1", 400),
        ("/views/public.by_n?n=1%27%20OR%201=1", 400),
    ):  # fmt: skip
        answer = get(path)
        assert answer.status == status and answer.json["error"], path
    answer = web.post({}, path="/views/public.by_n")
    assert answer.status == 405 and answer.headers["allow"] == "GET"
    assert get("/views/public.by_n", token="wrong").status == 401


def test_what_is_read_is_utf8_and_a_record_a_line(web: Web) -> None:
    web.db.execute("CREATE VIEW w AS SELECT E'{\"a\":\\r\\n\\n1}'::json AS d, 'é' AS t")
    web.db.execute("GRANT SELECT ON w TO ingest")
    lines = web.request("GET", "/views/public.w", headers={"Accept": "application/x-ndjson"}).body.splitlines()
    assert [json.loads(line) for line in lines] == [{"d": {"a": 1}, "t": "é"}]
    for path in ("public.%ff", "public.%ff/changes", "public.w?t=%f0", "public.w?%ff=1", "public.w?d=%ff"):
        answer = web.request("GET", "/views/" + path)
        assert (answer.status, answer.json["error"]) == (400, "the path or an argument is not valid UTF-8")
    assert web.request("GET", "/views/public.w?t=%c3%a9").json == [{"d": {"a": 1}, "t": "é"}]


def test_a_slow_view_holds_up_nobody_who_sends(web: Web) -> None:
    web.db.execute("CREATE VIEW slow AS SELECT pg_sleep(20)::text AS slept, current_user::text AS me")
    web.db.execute("GRANT SELECT ON slow TO ingest")
    reader = threading.Thread(target=lambda: web.request("GET", "/views/public.slow"))
    reader.start()
    wait_for(lambda: web.db.rows("SELECT 1 FROM pg_stat_activity WHERE backend_type = 'streamext reader'"))
    assert web.post({"n": 1}).status == 204
    web.db.execute("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'streamext reader'")
    reader.join()
    web.db.execute("CREATE VIEW who AS SELECT current_user::text AS me, session_user::text AS whose")
    web.db.execute("GRANT SELECT ON who TO ingest")
    assert web.request("GET", "/views/public.who").json == [{"me": "ingest", "whose": "ingest"}]


def test_who_may_make_somebody_of_a_token(db: Database) -> None:
    """The owner of a server must not become whom he likes by a mapping."""
    web = Web(db)
    web.stream()
    db.execute("DO $$ BEGIN CREATE ROLE keeper; EXCEPTION WHEN duplicate_object THEN END $$")
    db.execute("GRANT USAGE ON FOREIGN DATA WRAPPER http TO keeper")
    db.execute("ALTER SERVER web OWNER TO keeper")
    db.execute("SET ROLE keeper")
    assert db.refusal("CREATE USER MAPPING FOR postgres SERVER web OPTIONS (token 'x')").startswith("42501")
    assert db.refusal("ALTER USER MAPPING FOR ingest SERVER web OPTIONS (SET token 'x')").startswith("42501")
    assert db.refusal("ALTER SERVER web OPTIONS (ADD anonymous_role 'postgres')").startswith("42501")
    assert db.refusal("CREATE USER MAPPING FOR PUBLIC SERVER web OPTIONS (token 'x')").startswith("0A000")
    db.execute("CREATE USER MAPPING FOR keeper SERVER web OPTIONS (token 'keeper-token')")
    db.execute("RESET ROLE")
    db.execute("CREATE USER MAPPING FOR postgres SERVER web OPTIONS (token 'root')")
    assert web.post({"n": 1}, token="keeper-token").status == 403
    assert web.post({"n": 1}, token="root").status == 401
    db.execute("DROP SERVER web CASCADE")
    db.execute("REVOKE ALL ON FOREIGN DATA WRAPPER http FROM keeper")


def test_tls(pg: Postgres, db: Database) -> None:
    def certify(name: str) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2",
             "-keyout", pg.data / "web.key", "-out", pg.data / "web.crt"], check=True, capture_output=True,
        )  # fmt: skip
        for file in ("web.key", "web.crt"):
            shutil.chown(pg.data / file, "postgres" if os.geteuid() == 0 else None)

    def shown() -> bytes:
        try:
            return ssl.get_server_certificate(("127.0.0.1", web.port)).encode()
        except OSError:  # it takes the new certificate just now
            return b""

    def slow_sender() -> bool:
        try:
            with context.wrap_socket(socket.create_connection(("127.0.0.1", web.port), timeout=10)) as slow:
                slow.sendall(b"POST /s HTTP/1.1\r\nHost")
                answer = slow.recv(4096)
                return answer.startswith(b"HTTP/1.1 408 ") and bool(json.loads(answer.split(b"\r\n\r\n")[1])["error"]) and slow.recv(1) == b""
        except OSError:  # the handshake took too long
            return False

    web = Web(db, f"ssl_certificate_location '{pg.data}/web.crt', ssl_key_location '{pg.data}/web.key'")
    web.wait("certificate_unreadable")
    certify("one")
    web.wait("listening")
    web.stream()
    continuous(db, "v", "SELECT count(*) AS c, sum(n)::bigint AS total FROM s")
    context = ssl._create_unverified_context()

    def post() -> int:
        connection = http.client.HTTPSConnection("127.0.0.1", web.port, timeout=30, context=context)
        return web.post({"n": 1}, connection=connection).status

    assert post() == 204
    wait_for(lambda: shown() == (pg.data / "web.crt").read_bytes())
    db.execute("ALTER SERVER web OPTIONS (ADD header_timeout '300 ms')")
    wait_for(slow_sender, what="408")
    db.execute("ALTER SERVER web OPTIONS (DROP header_timeout)")
    certify("two")
    pg.reload()
    wait_for(lambda: shown() == (pg.data / "web.crt").read_bytes())
    assert post() == 204
    assert counted(web) == (2, 2)
    request = pg.data / "web.csr"
    for command in (["req", "-new", "-key", pg.data / "web.key", "-subj", "/CN=three", "-out", request],
                    ["x509", "-req", "-in", request, "-signkey", pg.data / "web.key", "-days", "-1", "-out", pg.data / "web.crt"]):  # fmt: skip
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    pg.reload()
    wait_for(lambda: "has expired" in (shown() and db.value("SELECT last_error FROM streamext.gateways") or ""), what="the expiry")


def test_a_full_journal(db: Database) -> None:
    web = Web(db)
    web.stream(columns="t text")
    db.configure("streamext.journal_limit", "64")
    db.execute("SELECT streamext.pause('s')")
    body = json.dumps({"t": "x" * 8_000_000})
    answers = [web.post(body) for _ in range(12)]
    assert answers[0].status == 204 and answers[-1].status == 503 and answers[-1].headers["retry-after"]
    assert "journal_limit" in db.value("SELECT last_error FROM streamext.gateways")
    db.execute("SELECT streamext.resume('s')")
    wait_for(lambda: web.post({"t": "y"}).status == 204)
    db.execute("ALTER SYSTEM RESET streamext.journal_limit")
    db.server.reload()


def test_the_server_is_altered(web: Web) -> None:
    """Whatever it takes to bring the options in, who comes next is heard."""
    for connections in range(100, 105):
        web.db.execute(f"ALTER SERVER web OPTIONS ({'SET' if connections > 100 else 'ADD'} max_connections '{connections}')")
        wait_for(lambda: answers(web))
    before, web.port = web.port, free_port()
    web.db.execute(f"ALTER SERVER web OPTIONS (SET listen '127.0.0.1:{web.port}')")
    wait_for(lambda: answers(web))
    wait_for(lambda: not listens(before))


def test_the_server_is_altered_before_the_caches_know(web: Web) -> None:
    """The gateway is woken within the commit, before the invalidation messages are sent, and nothing wakes it when they come."""
    wait_for(lambda: answers(web))
    before, web.port = web.port, free_port()
    web.db.configure("streamext.fault_point", "wait server-announced")
    with ThreadPoolExecutor() as pool, web.db.connect() as other:
        altered = pool.submit(other.execute, f"ALTER SERVER web OPTIONS (SET listen '127.0.0.1:{web.port}')")
        try:
            wait_for(lambda: web.db.value("SELECT listen FROM streamext.gateways") == f"127.0.0.1:{web.port}")
        finally:
            web.db.configure("streamext.fault_point", "")
        altered.result()
    wait_for(lambda: not listens(before))


def test_the_server_is_altered_while_the_gateway_reads_it(web: Web) -> None:
    """The invalidation messages come in the middle, and nothing wakes the gateway after them."""
    wait_for(lambda: answers(web))
    before, web.port = web.port, free_port()
    web.db.configure("streamext.fault_point", "wait gateway-before-roster")
    web.db.execute(f"ALTER SERVER web OPTIONS (SET listen '127.0.0.1:{web.port}')")
    web.db.configure("streamext.fault_point", "")
    wait_for(lambda: answers(web))
    wait_for(lambda: not listens(before))


def test_a_stream_that_a_transaction_holds_keeps_nothing_else_as_it_was(web: Web) -> None:
    """Whoever has one stream there could keep a token in force that was taken back, and everybody from being served after a restart."""
    web.stream(name="theirs", path="/theirs")
    assert web.post({"n": 1}, path="/theirs").status == 204
    with web.db.connect() as other, other.transaction():
        other.execute("ALTER FOREIGN TABLE theirs ALTER n SET STATISTICS 10")
        web.db.execute("ALTER USER MAPPING FOR ingest SERVER web OPTIONS (SET token 'another-token')")
        wait_for(lambda: web.post({"n": 1}).status == 401, what="the former token to be refused")
        for path in ("/s", "/theirs"):
            assert web.post({"n": 1}, path=path, token="another-token").status == 204
        web.db.execute("CREATE FOREIGN TABLE a_new_one (n int) SERVER web OPTIONS (path '/new'); GRANT INSERT ON a_new_one TO ingest")
        wait_for(lambda: web.post({"n": 1}, path="/new", token="another-token").status == 204, what="the new stream")
    web.db.execute("ALTER FOREIGN TABLE theirs OPTIONS (SET path '/other')")
    wait_for(lambda: web.post({"n": 1}, path="/other", token="another-token").status == 204, what="the stream that was held")


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def answers(web: Web) -> bool:
    try:
        return web.post({"n": 1}).status == 204
    except OSError:
        return False


def test_rate_limit(db: Database) -> None:
    """Who sends more at once than in a second is told when to come again."""
    web = Web(db, "rate_limit '2'")
    web.stream()

    def refused() -> bool:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: web.post({"n": 1}), range(16)))
        assert {answer.status for answer in answers} <= {204, 429}
        assert all(answer.headers["retry-after"] for answer in answers if answer.status == 429)
        return {answer.status for answer in answers} == {204, 429}

    wait_for(refused, what="one too many")


def test_a_port_that_is_taken(db: Database) -> None:
    with socket.socket() as taken:
        port = free_port()
        taken.bind(("127.0.0.1", port))
        taken.listen()
        db.execute(f"CREATE SERVER web FOREIGN DATA WRAPPER http OPTIONS (listen '127.0.0.1:{port}')")
        wait_for(lambda: db.rows("SELECT state FROM streamext.gateways") == [("address_in_use",)])
    wait_for(lambda: db.rows("SELECT state FROM streamext.gateways") == [("listening",)])
    db.execute("DROP SERVER web")
    wait_for(lambda: db.rows("SELECT state FROM streamext.gateways") == [])
    wait_for(lambda: not listens(port))


def send_until(web: Web, stop: threading.Event, acknowledged: list[int]) -> None:
    """Posts each number as a batch of three records until it is answered 204; one that got no answer is sent again by its key."""
    for n in itertools.count():
        while not stop.is_set():
            try:
                answer = web.post([{"n": n}] * 3, headers={"Idempotency-Key": f"key-{n}"})
                if answer.status == 204:
                    acknowledged.append(n)
                    break
            except Exception:  # whatever a connection may end with
                pass
            time.sleep(0.01)
        if stop.is_set():
            return


@pytest.fixture
def lonely() -> "Postgres":
    with Postgres() as server:
        yield server


def test_acknowledged_records_survive_kill9(lonely: Postgres) -> None:
    with temporary_database(lonely) as db:
        web = Web(db)
        web.stream()
        continuous(db, "v", "SELECT n, count(*) AS c FROM s GROUP BY n")
        acknowledged: list[int] = []
        with meanwhile(lambda stop: send_until(web, stop, acknowledged)):
            wait_for(lambda: len(acknowledged) >= 200)
            gateway = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'streamext gateway'")
            lonely.kill_backend(gateway)
            db.connection = lonely.connect(db.name)
            before = len(acknowledged)
            wait_for(lambda: len(acknowledged) >= before + 200, what="more after the crash")
        web.wait("listening")
        db.flush("s")
        assert dict(db.rows("SELECT n, c FROM v WHERE n = ANY(%s)", acknowledged)) == {n: 3 for n in acknowledged}
        assert not db.rows("SELECT n, c FROM v WHERE c <> 3")
        db.connection.close()
