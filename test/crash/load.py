"""What a load on the server has to offer to a round, and the comparison that all loads share."""

import random
import threading
from collections.abc import Callable
from typing import Any

from harness.database import Database

DELIVERY = 600  # seconds until everything sent must have been acknowledged: for what never comes


class Producer:
    """Calls `work` over and over in a thread of its own while it runs; what `work` raises comes out of pause()."""

    def __init__(self, work: Callable[[], None], idle: float = 0.005) -> None:
        self._work = work
        self._idle = idle
        self._running = threading.Event()
        self._resting = threading.Event()
        self._ending = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._ending:
                if not self._running.is_set():
                    self._resting.set()
                    self._running.wait()
                    self._resting.clear()  # it may have been resumed before it said that it rests
                    continue
                self._work()
                threading.Event().wait(self._idle)
        except BaseException as error:
            self._error = error
        finally:
            self._resting.set()

    def resume(self) -> None:
        self._resting.clear()
        self._running.set()

    def pause(self) -> None:
        """Returns when the thread does nothing."""
        self._running.clear()
        if not self._resting.wait(DELIVERY):
            raise TimeoutError("a producer does not come to rest")
        if self._error:
            raise self._error

    def end(self) -> None:
        self._ending = True
        self._running.set()
        self._thread.join(DELIVERY)


class Load:
    """begin, then any number of (resume, pause, check), then end. A load can be begun again."""

    name: str
    streams: list[str]  # to flush

    def begin(self, db: Database) -> None:
        """New streams and views."""
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    def pause(self) -> None:
        """Returns when nothing more is sent and the source has acknowledged everything."""
        raise NotImplementedError

    def check(self, db: Database) -> list[str]:
        """While paused and flushed: what is wrong, a line each."""
        raise NotImplementedError

    def end(self) -> None:
        raise NotImplementedError

    def sent(self) -> int:
        """So far, over all begins."""
        raise NotImplementedError

    def broker_dies(self) -> None:
        """The broker is about to be killed with -9."""


class Producers(Load):
    """A load of producers; begin makes them in `_threads`, and what they send is numbered by `_n`."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._lock = threading.Lock()
        self._n = 0
        self._threads: list[Producer] = []

    def resume(self) -> None:
        for thread in self._threads:
            thread.resume()

    def pause(self) -> None:
        for thread in self._threads:
            thread.pause()

    def end(self) -> None:
        for thread in self._threads:
            thread.end()

    def sent(self) -> int:
        return self._n


def compare(db: Database, name: str, actual: str, expected: str) -> list[str]:
    """`expected` may stand for itself only: it is worked out once. Wrong lines as Load.check returns them."""
    db.execute("DROP TABLE IF EXISTS pg_temp.expected")
    db.execute(f"CREATE TEMP TABLE expected AS {expected}")
    return same(db, name, actual, "TABLE pg_temp.expected")


def same(db: Database, name: str, actual: str, expected: str) -> list[str]:
    try:
        db.assert_same(actual, expected)
    except AssertionError as difference:
        return [f"{name}: {difference}"]
    return []


def counted(db: Database, view: str, delivered: int) -> list[str]:
    """Every record is accepted: none late, none rejected."""
    found: tuple[Any, ...] = db.rows(
        "SELECT accepted, late, rejected FROM streamext.continuous_views WHERE view = %s::regclass", view
    )[0]
    return [] if found == (delivered, 0, 0) else [f"{view}: (accepted, late, rejected) {found}, delivered {delivered}"]
