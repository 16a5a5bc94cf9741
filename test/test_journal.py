"""The journal of local and MQTT streams: bounded, trimmed, what is left of it after a loss of power, damage, the catalogue."""

import os
import re
import shutil
import signal
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from crash.faults import kill_all
from harness.database import Database
from harness.mosquitto import Mosquitto
from harness.postgres import IMMEDIATE, Postgres
from harness.streams import continuous, counts, local_stream, mqtt_stream, state, worker_pid
from harness.wait import wait_for

SEGMENT = 16 << 20
MAGIC = re.compile(rb"SXJ[12]")

# Checkpoints are taken only where a test wants one.
SETTINGS = {"streamext.journal_limit": "64MB", "streamext.checkpoint_interval": 0}


def counting(db: Database, options: str = "") -> None:
    local_stream(db, options, "a bigint, t text")
    continuous(db, "v", "SELECT count(*) AS n, coalesce(sum(a), 0)::bigint AS total FROM s")


def journal(db: Database) -> list[Path]:
    """Its segment files, the oldest first."""
    relid, dboid = db.rows("SELECT 's'::regclass::oid, oid FROM pg_database WHERE datname = current_database()")[0]
    files = (db.server.data / "streamext" / str(dboid) / f"{relid}.0").iterdir()
    return sorted(file for file in files if file.name != "session")


def restarted(db: Database, meanwhile: Callable[[list[Path]], None]) -> Database:
    """The server is killed, something happens to the journal's files, the server comes back."""
    files = journal(db)
    kill_all(db.server)
    meanwhile(files)
    db.server.start()
    return Database(db.server, db.name)


# ---- full ----


def taken(db: Database, megabytes: int = 0) -> bool:
    """Inserts so many rows of 1 MB, or a small one."""
    try:
        db.execute(f"INSERT INTO s SELECT 1, repeat('x', {1_000_000 if megabytes else 1}) FROM generate_series(1, {max(megabytes, 1)})")
    except psycopg.errors.ConfigurationLimitExceeded:
        return False
    return True


def fill(db: Database) -> int:
    """Until nothing more is taken; how many rows were."""
    rows = 0
    while taken(db, 20):
        rows += 20
    assert 64 <= rows <= 120
    assert not taken(db)
    return rows


def test_a_stream_without_views_keeps_nothing(database: Database) -> None:
    """Nobody has to count its rows: what was read is trimmed, by checkpoints as for any."""
    db = database
    local_stream(db, columns="a bigint, t text")
    db.configure("streamext.checkpoint_interval", 20)
    for _ in range(5):
        wait_for(lambda: taken(db, 25), what="room in the journal")
    wait_for(lambda: db.value("SELECT journal_bytes FROM streamext.stream_partitions") <= 2 * SEGMENT, what="a trimmed journal")
    begin, position, end = db.rows("SELECT journal_begin, position, journal_end FROM streamext.stream_partitions")[0]
    assert 0 < begin <= position <= end


def test_a_paused_view_keeps_the_journal_until_it_is_dropped(database: Database) -> None:
    db = database
    counting(db)
    continuous(db, "w", "SELECT count(*) AS n FROM s")
    db.configure("streamext.checkpoint_interval", 20)
    db.flush("s")
    db.execute("SELECT streamext.pause('w')")
    rows = fill(db)
    db.flush("s")
    assert db.rows("SELECT n FROM v") == [(rows,)]
    with pytest.raises(psycopg.errors.ConfigurationLimitExceeded) as error:
        db.execute("INSERT INTO s VALUES (1)")
    assert "paused or failed view" in (error.value.diag.message_hint or "")
    db.execute("DROP VIEW w")
    wait_for(lambda: taken(db), what="room in the journal")
    db.flush("s")
    assert db.rows("SELECT n FROM v") == [(rows + 1,)]


def test_a_failed_view_keeps_the_journal_until_it_is_mended(database: Database) -> None:
    """Nothing is lost to it."""
    db = database
    local_stream(db, columns="a bigint, t text")
    db.execute("CREATE TABLE target (a bigint); CREATE ROLE writer LOGIN")
    try:
        db.execute("GRANT SELECT ON s TO writer; GRANT INSERT ON target TO writer; GRANT CREATE ON SCHEMA public TO writer")
        with db.connect("writer") as writer:
            writer.execute("CREATE VIEW w WITH (streamext.continuous, streamext.into = 'target') AS SELECT a FROM s")
        db.configure("streamext.checkpoint_interval", 20)
        db.execute("REVOKE INSERT ON target FROM writer")
        rows = fill(db)
        wait_for(lambda: db.value("SELECT state FROM streamext.continuous_views") == "failed", what="the view to fail")
        assert not taken(db)
        db.execute("GRANT INSERT ON target TO writer; ALTER FOREIGN TABLE s OPTIONS (ADD buffer_size '100')")
        wait_for(lambda: taken(db), what="room in the journal")
        db.flush("s")
        assert db.rows("SELECT count(*) FROM target") == [(rows + 1,)]
    finally:
        db.execute("DROP OWNED BY writer CASCADE; DROP ROLE writer")


def test_killed_before_the_full_journal_was_trimmed(database: Database) -> None:
    """All is counted and in a checkpoint, so no row will come that would bring about the next one."""
    db = database
    counting(db)
    rows = fill(db)
    db.flush("s")
    before = db.server.log_file.stat().st_size
    db.configure("streamext.fault_point", "checkpoint-before-confirm")
    db.flush("s")
    db.flush("s")  # the worker's loop has been round, and it has the setting
    os.kill(worker_pid(db), signal.SIGTERM)  # its last checkpoint
    wait_for(lambda: "all server processes terminated" in db.server.log(before), what="the crash")
    wait_for(db.server.is_ready, what="recovery")
    db = Database(db.server, db.name)
    db.configure("streamext.checkpoint_interval", 20)
    wait_for(lambda: taken(db), what="room in the journal")
    db.flush("s")
    assert db.rows("SELECT n FROM v") == [(rows + 1,)]


def test_a_message_larger_than_the_limit(database: Database, mosquitto: Mosquitto, topic: str) -> None:
    """It is rejected as too long, and its file is the journal's last but one, which stays for a while. With MQTT 5 the broker would not send it."""
    db = database
    mqtt_stream(db, mosquitto, f"topic '{topic}', protocol '3.1.1'", "a text", format="text")
    continuous(db, "v", "SELECT count(*) AS n FROM s")
    db.configure("streamext.checkpoint_interval", 20)
    db.flush("s")
    mosquitto.publish([(topic, "x" * 70_000_000)], qos=1)
    for _ in range(3):
        mosquitto.publish([(topic, "x")], qos=1)
        db.flush("s")
    assert counts(db, "v") == (3, 0, 1)


# ---- the machine ----


class Machine:
    """A server whose journals are, after lose_power(), as its disk would have them."""

    def __init__(self, directory: Path) -> None:
        self.kept = directory / "kept"
        self.kept.mkdir(mode=0o777)
        self.kept.chmod(0o777)
        library = directory / "power_loss.so"
        source = Path(__file__).parent / "power_loss.c"
        subprocess.run(["cc", "-O", "-shared", "-fPIC", "-o", library, source], check=True)
        environment = [f"LD_PRELOAD={library}", f"LOSS_KEPT={self.kept}"]

        class PowerLoss(Postgres):
            def command(self) -> list[str | Path]:
                return ["env", *environment, f"LOSS_DATA={self.data}", *super().command()]

        self.server = PowerLoss(fsync=True, settings={"streamext.checkpoint_interval": 0})

    def lose_power(self) -> None:
        """The server is down: takes away what was not synced."""
        names = {name.replace("!", "/") for name in os.listdir(self.kept / "names")}
        top = self.server.data / "streamext"
        for path in sorted(top.rglob("*"), reverse=True):
            above = [path, *path.parents]
            if not all(str(part) in names for part in above[: above.index(self.server.data)]):
                path.rmdir() if path.is_dir() else path.unlink()
            elif path.is_file():
                kept = Path(f"{self.kept}{path}")
                path.write_bytes(kept.read_bytes() if kept.exists() else b"")


@pytest.fixture
def machine() -> Iterator[Machine]:
    directory = Path(tempfile.mkdtemp(prefix="streamext-machine-"))
    directory.chmod(0o755)  # for the server's user
    machine = Machine(directory)
    with machine.server:
        machine.server.psql("CREATE EXTENSION streamext")
        yield machine
    shutil.rmtree(directory, ignore_errors=True)


def after_power_loss(machine: Machine) -> Database:
    machine.server.stop(IMMEDIATE)
    machine.lose_power()
    machine.server.start()
    db = Database(machine.server, "postgres")
    db.flush("s")
    return db


def test_what_was_committed_is_on_the_disk(machine: Machine) -> None:
    """Rows of journal 'fsync', over several files; those of 'os' show that power is lost here."""
    db = Database(machine.server, "postgres")
    counting(db, "journal 'fsync'")
    local_stream(db, columns="a bigint", name="careless")
    continuous(db, "c", "SELECT count(*) AS n FROM careless")
    for i in range(20):
        db.execute(f"INSERT INTO s VALUES ({i}, repeat('x', 1500000)), ({i}, 'y'); INSERT INTO careless VALUES (1)")
    db.flush("s", "careless")
    assert db.rows("TABLE c") == [(20,)]
    db = after_power_loss(machine)
    assert db.rows("TABLE v") == [(40, 2 * sum(range(20)))]
    db.flush("careless")
    assert db.rows("TABLE c") == [(0,)]
    db.execute("INSERT INTO s VALUES (7); INSERT INTO careless VALUES (1)")
    db.flush("s", "careless")
    assert (db.rows("TABLE v"), db.rows("TABLE c")) == ([(41, 2 * sum(range(20)) + 7)], [(1,)])


def test_what_was_acknowledged_is_on_the_disk(machine: Machine, mosquitto: Mosquitto, topic: str) -> None:
    """Also a message that was in the file and not yet on the disk when the process was killed: sent again, it is known and
    acknowledged, so it must be on the disk by then."""
    db = Database(machine.server, "postgres")
    mqtt_stream(db, mosquitto, f"topic '{topic}', qos '2', journal 'fsync'", "a bigint")
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    db.flush("s")
    mosquitto.publish([(topic, f'{{"a":{i}}}') for i in range(20)], qos=2)
    db.flush("s")
    before = machine.server.log_file.stat().st_size
    (machine.kept / "die").touch()
    machine.kept.chmod(0o777)
    mosquitto.publish([(topic, '{"a":20}')], qos=2)
    wait_for(lambda: "all server processes terminated" in machine.server.log(before), what="the crash")
    wait_for(machine.server.is_ready, what="recovery")
    Database(machine.server, "postgres").flush("s")  # the broker has its acknowledgement
    db = after_power_loss(machine)
    assert db.rows("TABLE v") == [(21, sum(range(21)))]


def test_a_quota_of_the_disk_is_not_the_limit(machine: Machine) -> None:
    """What the operating system refuses is reported as that, and not as streamext.journal_limit."""
    db = Database(machine.server, "postgres")
    counting(db)
    db.execute("INSERT INTO s VALUES (1)")
    (machine.kept / "quota").touch()
    with pytest.raises(psycopg.errors.DiskFull, match="could not write to the journal") as error:
        db.execute("INSERT INTO s VALUES (2)")
    assert "journal_limit" not in str(error.value)
    (machine.kept / "quota").unlink()
    db.execute("INSERT INTO s VALUES (3)")
    db.flush("s")
    assert db.rows("TABLE v") == [(2, 4)]


# ---- torn and damaged ----


def shorten(files: list[Path]) -> None:
    os.truncate(files[-1], files[-1].stat().st_size - 5)


def garble_tail(files: list[Path]) -> None:
    data = bytearray(files[-1].read_bytes())
    data[-9] ^= 0xFF
    files[-1].write_bytes(data)


@pytest.mark.parametrize("source, tear", [("local", shorten), ("mqtt", garble_tail)])
def test_a_torn_tail_is_cut(
    database: Database, mosquitto: Mosquitto, topic: str, source: str, tear: Callable[[list[Path]], None]
) -> None:
    db = database
    put = make_source(db, mosquitto, topic, source)
    for i in range(20):
        put(db, i)
    db.flush("s")
    before = db.server.log_file.stat().st_size
    db = restarted(db, tear)
    db.flush("s")
    assert db.rows("TABLE v") == [(19, sum(range(19)))]
    assert "bytes of an unfinished record off the end of journal" in db.server.log(before)
    put(db, 100)
    db.flush("s")
    assert db.rows("TABLE v") == [(20, sum(range(19)) + 100)]
    assert state(db) == "running"


def test_a_torn_record_full_of_what_looks_like_records(database: Database) -> None:
    """Each says that it goes to the end of the file: to look through all of them took the server's start days, and held who looked at the streams."""
    db = database
    counting(db)
    db.execute("INSERT INTO s VALUES (1)")
    db.flush("s")

    def craft(files: list[Path]) -> None:
        start, end = files[-1].stat().st_size, SEGMENT - 64

        def head(at: int) -> bytes:
            return struct.pack("<4sIIIQqQIHHq", b"SXJ1", 0, end - at, 1, 0, 0, 0, end - at - 57, 0, 0, at)

        with files[-1].open("ab") as file:
            file.write(b"".join(head(at) for at in range(start, end - 56, 56)))
            file.truncate(end)

    db = restarted(db, craft)
    wait_for(lambda: state(db) == "failed", what="the damage to be found")
    assert "damaged" in db.value("SELECT last_error FROM streamext.streams")
    db.execute("SELECT streamext.seek('s', 'latest'); SELECT streamext.resume('s')")
    db.flush("s")  # it is there
    db.execute("INSERT INTO s VALUES (2)")
    db.flush("s")
    assert db.rows("TABLE v") == [(2, 3)]


def test_a_damaged_note_of_the_brokers_session(database: Database, mosquitto: Mosquitto, topic: str) -> None:
    """It is as good as none; a filter made of damage would be refused for ever."""
    db = database
    put = make_source(db, mosquitto, topic, "mqtt")
    put(db, 1)
    db.flush("s")

    def damage(files: list[Path]) -> None:
        note = files[-1].parent / "session"
        note.write_bytes(note.read_bytes().replace(topic.encode(), b"\xff" + topic.encode()[1:]))

    db = restarted(db, damage)
    put(db, 2)
    db.flush("s")
    assert db.rows("TABLE v") == [(2, 3)]


def test_a_file_whose_end_was_not_made(database: Database) -> None:
    """Killed between the mark that the rest of a file is empty and its full length: what came into the next one is there."""
    db = database
    counting(db)
    for i in range(12):
        db.execute(f"INSERT INTO s VALUES ({i}, repeat('x', 2000000))")
    db.flush("s")

    def shorten_first(files: list[Path]) -> None:
        assert len(files) == 2
        os.truncate(files[0], files[0].read_bytes().rindex(b"SXJ1") + 56)

    db = restarted(db, shorten_first)
    db.flush("s")
    assert db.rows("TABLE v") == [(12, sum(range(12)))]


def make_source(db: Database, mosquitto: Mosquitto, topic: str, source: str) -> Callable[..., None]:
    """A stream s and its view v; what puts a number into it."""
    if source == "local":
        counting(db)
        return lambda db, i, size=100: db.execute(f"INSERT INTO s VALUES ({i}, repeat('x', {size}))")
    mqtt_stream(db, mosquitto, f"topic '{topic}'", "a bigint")
    continuous(db, "v", "SELECT count(*) AS n, sum(a)::bigint AS total FROM s")
    db.flush("s")
    return lambda db, i, size=100: mosquitto.publish([(topic, f'{{"a":{i},"t":"{"x" * size}"}}')], qos=1)


@pytest.mark.parametrize("source, size", [("local", 100), ("local", 2_000_000), ("mqtt", 100)])
def test_damage_before_good_records_is_an_error(
    database: Database, mosquitto: Mosquitto, topic: str, source: str, size: int
) -> None:
    """Not a torn tail, and nothing is cut off: in the last file or one before it. The stream stops there and says so, goes on
    taking messages and rows, and goes on reading where it is told to."""
    db = database
    put = make_source(db, mosquitto, topic, source)
    for i in range(20):
        put(db, i, size)
    db.flush("s")

    def garble(files: list[Path]) -> None:
        data = bytearray(files[0].read_bytes())
        at = [match.start() for match in MAGIC.finditer(data)][5]  # the sixth record
        data[at + 60] ^= 0xFF
        files[0].write_bytes(data)

    sizes = [file.stat().st_size for file in journal(db)]
    db = restarted(db, garble)
    wait_for(lambda: state(db) == "failed", what="the damage to be found")
    assert "damaged" in db.value("SELECT last_error FROM streamext.streams")
    assert db.rows("TABLE v") == [(5, sum(range(5)))]
    assert [file.stat().st_size for file in journal(db)] == sizes
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
        db.flush("s")
    assert "damaged" in (error.value.diag.message_detail or "")
    db.execute("SELECT streamext.seek('s', 'latest'); SELECT streamext.resume('s')")
    db.flush("s")  # it is there
    put(db, 100)
    db.flush("s")
    assert db.rows("TABLE v") == [(6, sum(range(5)) + 100)]
    assert state(db) == "running"
