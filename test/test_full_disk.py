"""A disk that is really full, below the journals and below the tables of a database: a small tmpfs, so as root only."""

import ctypes
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from crash.faults import kill_all
from harness.database import Database
from harness.flume import Event, Tier
from harness.http import Web
from harness.mosquitto import Mosquitto
from harness.postgres import Postgres
from harness.streams import continuous, local_stream, mqtt_stream, state
from harness.wait import wait_for

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2
LARGE = "x" * 100_000  # needs more room than a page that is begun


class SmallDisk:
    """A file system of so many megabytes at `path`, which belongs to who owns the directory."""

    def __init__(self, path: Path, megabytes: int) -> None:
        self.path = path
        self.ballast = path / "ballast"
        owner = path.stat()
        options = f"size={megabytes}m,mode=0700,uid={owner.st_uid},gid={owner.st_gid}"
        if _libc.mount(b"tmpfs", str(path).encode(), b"tmpfs", 0, options.encode()) != 0:
            pytest.skip(f"no file system may be mounted here: {os.strerror(ctypes.get_errno())}")

    def fill(self) -> None:
        with self.ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                try:
                    while file.write(b"\1" * size):
                        pass
                except OSError as error:
                    assert error.errno == errno.ENOSPC

    def make_room(self) -> None:
        self.ballast.unlink()

    def unmount(self) -> None:
        _libc.umount2(str(self.path).encode(), _MNT_DETACH)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    if os.geteuid() != 0:
        pytest.skip("only root may mount a small file system")
    with Postgres(settings={"streamext.checkpoint_interval": 20}) as server:
        yield server


@pytest.fixture(scope="module")
def disk(server: Postgres) -> Iterator[Callable[[Path, int], SmallDisk]]:
    disks: list[SmallDisk] = []

    def mount(path: Path, megabytes: int) -> SmallDisk:
        path.mkdir(parents=True, exist_ok=True)
        for each in (path, path.parent):
            shutil.chown(each, "postgres", "postgres")
        disks.append(SmallDisk(path, megabytes))
        return disks[-1]

    yield mount
    server.stop(server.kill_signal)
    for each in disks:
        each.unmount()


def database(server: Postgres, name: str) -> Database:
    db = Database(server, name)
    db.execute("CREATE EXTENSION IF NOT EXISTS streamext")
    return db


class Channels:
    """A stream and a view that counts it for each way in, in a database whose journals lie on the disk; `taken` is what was acknowledged."""

    def __init__(self, db: Database, mosquitto: Mosquitto, topic: str) -> None:
        self.db = db
        self.mosquitto = mosquitto
        self.topic = topic
        self.batches = 0
        self.taken = {"l": 0, "w": 0, "f": 0, "m": 0}
        local_stream(db, columns="n int, t text", name="l")
        self.web = Web(db)
        self.web.stream(name="w", path="/w")
        self.tier = Tier(db)
        self.tier.stream(name="f")
        mqtt_stream(db, mosquitto, f"topic '{topic}'", "n int, t text", name="m")
        for stream in self.taken:
            continuous(db, f"v_{stream}", f"SELECT count(*) AS c FROM {stream}")
        db.flush(*self.taken)

    def insert(self) -> str | None:
        """The SQLSTATE of the refusal."""
        try:
            self.db.execute("INSERT INTO l VALUES (1, %s)", LARGE)
        except psycopg.Error as error:
            return error.sqlstate
        self.taken["l"] += 1
        return None

    def post(self, key: str | None = None) -> int:
        answer = self.web.post({"n": 1, "t": LARGE}, "/w", headers={"Idempotency-Key": f'"{key}"'} if key else {})
        self.taken["w"] += answer.status == 204
        assert answer.status == 204 or (answer.json["error"] and answer.headers["retry-after"])
        return answer.status

    def batch(self) -> str | None:
        self.batches += 1  # the same again could be one whose answer was lost
        events: list[Event] = [({}, json.dumps({"n": self.batches, "t": LARGE}).encode())] * 2
        with self.tier.sender() as sender:
            refusal = sender.batch(events)
        self.taken["f"] += 0 if refusal else 2
        return refusal

    def publish(self) -> None:
        """The broker has it, and keeps it until it is acknowledged."""
        self.mosquitto.publish([(self.topic, json.dumps({"n": 1, "t": LARGE}))])
        self.taken["m"] += 1

    def last_error(self, stream: str) -> str:
        return self.db.value("SELECT last_error FROM streamext.streams WHERE stream = %s::regclass", stream) or ""

    def assert_refused(self) -> None:
        assert self.insert() == "53100"
        self.web.wait("listening")
        self.tier.wait("listening")
        wait_for(lambda: self.post() == 503, what="503")  # after a crash: when the gateway knows its streams
        wait_for(lambda: "full" in (self.batch() or ""), what="a batch refused")
        wait_for(lambda: (state(self.db, "m"), "No space left" in self.last_error("m")) == ("stalled", True), what="what MQTT waits for")
        errors = self.db.rows("SELECT last_error FROM streamext.gateways ORDER BY server")
        assert all("No space left on device" in error for (error,) in errors), errors

    def assert_counted(self) -> None:
        self.db.flush(*self.taken)
        assert {stream: self.db.value(f"SELECT c FROM v_{stream}") for stream in self.taken} == self.taken


def test_journals(server: Postgres, disk: Callable[[Path, int], SmallDisk], mosquitto: Mosquitto, topic: str) -> None:
    """Nothing is acknowledged that is not kept, also by a server that is killed and comes up while there is no room."""
    server.psql("CREATE DATABASE full_one")
    oid = server.psql("SELECT oid FROM pg_database WHERE datname = 'full_one'")
    small = disk(server.data / "streamext" / oid, 30)
    db, other = database(server, "full_one"), database(server, "postgres")
    local_stream(other, columns="n int")
    continuous(other, "v", "SELECT count(*) AS c FROM s")
    channels = Channels(db, mosquitto, topic)
    assert (channels.insert(), channels.post("one"), channels.batch()) == (None, 204, None)
    channels.publish()
    channels.assert_counted()
    small.fill()
    channels.publish()
    assert channels.post("two") == 503
    channels.assert_refused()
    other.execute("INSERT INTO s VALUES (1)")
    other.flush("s")
    assert other.rows("TABLE v") == [(1,)]
    assert db.rows("SELECT (TABLE v_l), (TABLE v_w), (TABLE v_f), (TABLE v_m)") == [(1, 1, 2, 1)]
    kill_all(server)
    server.start()
    channels.db = channels.web.db = channels.tier.db = db = Database(server, "full_one")
    channels.assert_refused()
    wait_for(lambda: db.rows("SELECT (TABLE v_l), (TABLE v_w), (TABLE v_f), (TABLE v_m)") == [(1, 1, 2, 1)], what="what was acknowledged")
    small.make_room()
    wait_for(lambda: channels.post("two") == 204, what="room")
    assert (channels.insert(), channels.batch()) == (None, None)
    channels.assert_counted()
    wait_for(lambda: {state(db, stream) for stream in channels.taken} == {"running"}, what="all running")
    channels.web.post({"n": 1, "t": LARGE}, "/w", headers={"Idempotency-Key": '"one"'})
    channels.web.post({"n": 1, "t": LARGE}, "/w", headers={"Idempotency-Key": '"two"'})
    channels.assert_counted()  # both keys are known


def no_room(db: Database) -> bool:
    """Whether the catalogue says that the stream s cannot write."""
    return db.rows("SELECT FROM streamext.streams WHERE last_error LIKE '%No space left on device%' AND NOT last_error_past") != []


def test_tables(server: Postgres, disk: Callable[[Path, int], SmallDisk]) -> None:
    """No checkpoint, closed window or row of `into` can be written; the views go on, and after a crash they are counted anew."""
    small = disk(server.dir / "small", 64)
    server.psql(f"CREATE TABLESPACE small LOCATION '{small.path}'")
    server.psql("CREATE DATABASE small_one TABLESPACE small")
    db = database(server, "small_one")
    local_stream(db, "event_time 'ts'", "k int, ts timestamptz, t text")
    db.execute("CREATE TABLE target (k int, w timestamptz, c bigint, t text)")
    continuous(db, "total", "SELECT count(*) AS c, count(DISTINCT k) AS d FROM s")
    windows = "SELECT k, streamext.tumble('1 s', ts) AS w, count(*) AS c, max(t) AS t FROM s GROUP BY k, w"
    continuous(db, "v", windows, ", streamext.into = 'target'")

    def insert(first: int, last: int) -> None:
        """In pieces that fit in work_mem."""
        for piece in range(first, last, 5000):
            db.execute(
                """INSERT INTO s SELECT mod(n, 1000), timestamptz '2024-01-01 00:00+00' + n * interval '1 ms', repeat(n::text, 20)
                FROM generate_series(%s::int, %s::int) n""", piece, min(last, piece + 4999)
            )  # fmt: skip

    insert(1, 5000)
    db.flush("s")
    small.fill()
    insert(5001, 25000)
    wait_for(lambda: db.value("SELECT c FROM total") == 25000, what="the view that needs no room")
    wait_for(lambda: no_room(db), what="what the stream waits for")
    assert "No space left" in db.refusal("SELECT streamext.flush('s', '1 s')")
    kill_all(server)  # PostgreSQL itself does not come up while it cannot write its own pages
    small.make_room()
    server.start()
    db = Database(server, "small_one")
    db.flush("s")
    assert db.value("SELECT c FROM total") == 25000
    small.fill()
    insert(25001, 45000)
    wait_for(lambda: no_room(db), what="what the stream waits for")
    small.make_room()
    db.flush("s")
    wait_for(lambda: not no_room(db), what="trouble that is over")
    db.assert_same("SELECT k, w, c, t FROM v WHERE w < '2024-01-01 00:00:45+00'", "TABLE target")
    assert db.rows("SELECT (SELECT c FROM total), (SELECT sum(c) FROM v), (SELECT sum(c) FROM target)") == [(45000, 45000, 44999)]
