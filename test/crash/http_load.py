"""http: several senders. What was answered 204 is counted; of a request with an Idempotency-Key, which is repeated until it is answered, once, of another
one never twice, and all of its records or none."""

import http.client
import random
import time

from crash.load import DELIVERY, Producer, Producers, counted
from harness.database import Database
from harness.server import free_port
from harness.streams import continuous

TOKEN = "the sender's"


class HttpLoad(Producers):
    name = "http"
    streams = ["h"]

    def __init__(self, rng: random.Random, senders: int = 4) -> None:
        super().__init__(rng)
        self._senders = senders
        self._first = 0
        self._begun = 0

    def begin(self, db: Database) -> None:
        self._begun += 1
        self.port = free_port()
        self._first = self._n
        self.acknowledged: list[range] = []
        self.unknown: list[range] = []  # no answer, and not sent again
        db.execute("DO $$ BEGIN CREATE ROLE crash_sender; EXCEPTION WHEN duplicate_object THEN END $$")
        db.execute(f"CREATE SERVER crash_web FOREIGN DATA WRAPPER http OPTIONS (listen '127.0.0.1:{self.port}')")
        db.execute(f"CREATE USER MAPPING FOR crash_sender SERVER crash_web OPTIONS (token $${TOKEN}$$)")
        db.execute("CREATE FOREIGN TABLE h (n bigint) SERVER crash_web OPTIONS (path '/h', format 'json')")
        db.execute("GRANT INSERT ON h TO crash_sender")
        continuous(db, "h_numbers", "SELECT n % 100 AS k, count(*) AS c, array_agg(n) AS list FROM h GROUP BY k")
        continuous(db, "h_total", "SELECT count(*) AS c, sum(n)::bigint AS s FROM h")
        self._threads = [Producer(_Sender(self).work) for _ in range(self._senders)]

    def take(self, count: int) -> range:
        """Numbers that nobody else has."""
        with self._lock:
            self._n += count
            return range(self._n - count, self._n)

    def check(self, db: Database) -> list[str]:
        times: dict[int, int] = {}
        for (numbers,) in db.rows("SELECT list FROM h_numbers"):
            for n in numbers:
                times[n] = times.get(n, 0) + 1
        lost = [n for batch in self.acknowledged for n in batch if n not in times]
        twice = [n for n, count in times.items() if count > 1]
        torn = [batch for batch in self.unknown if len({n in times for n in batch}) > 1]
        wrong = [f"{len(bad)} {what}, such as {bad[:10]}" for what, bad in (("records lost", lost), ("records counted twice", twice), ("requests taken in part", torn)) if bad]
        total = sum(times.values())
        wrong += counted(db, "h_numbers", total) + counted(db, "h_total", total)
        if db.value("SELECT c FROM h_total") != total:
            wrong.append("the views differ")
        return wrong


class _Sender:
    def __init__(self, load: HttpLoad) -> None:
        self._load = load
        self._rng = random.Random(load._rng.random())
        self._connection = http.client.HTTPConnection("127.0.0.1", load.port, timeout=10)

    def work(self) -> None:
        """A request, with a key or without."""
        batch = self._load.take(self._rng.choice([1, 1, 10, 100]))
        body = "".join(f'{{"n":{n}}}\n' for n in batch)
        if self._rng.random() < 0.3:
            self._note(batch, self._post(body, {}))
            return
        deadline = time.monotonic() + DELIVERY
        while self._post(body, {"Idempotency-Key": f"{self._load._begun}-{batch.start}"}) != 204:
            if time.monotonic() > deadline:
                raise TimeoutError("the gateway takes nothing")
            time.sleep(0.02)
        self._note(batch, 204)

    def _note(self, batch: range, status: int | None) -> None:
        if status == 204:
            self._load.acknowledged.append(batch)
        elif status is None:
            self._load.unknown.append(batch)

    def _post(self, body: str, headers: dict[str, str]) -> int | None:
        """None: no answer, so nobody knows."""
        try:
            self._connection.request("POST", "/h", body, {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/x-ndjson", **headers})
            answer = self._connection.getresponse()
            answer.read()
            return answer.status
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return None
