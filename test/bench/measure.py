"""What something costs: time, CPU of whole process trees, peak memory; and what else the machine did meanwhile."""

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_TICK = os.sysconf("SC_CLK_TCK")
_CPUS = os.cpu_count() or 1
_SAMPLE = 0.25  # seconds between two looks at memory


def _stat(pid: int | str) -> list[str]:
    """The fields of /proc/PID/stat behind the name: [1] parent, [11..14] utime, stime, and those of reaped children."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """`root` and all its descendants."""
    parents: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents.setdefault(int(_stat(entry)[1]), []).append(int(entry))
            except OSError:
                pass  # ended meanwhile
    found = [root]
    for pid in found:
        found += parents.get(pid, [])
    return found


def cpu(root: int) -> float:
    """CPU-seconds of a process tree, ended children included."""
    ticks = 0
    for pid in tree(root):
        try:
            ticks += sum(map(int, _stat(pid)[11:15]))
        except OSError:
            pass
    return ticks / _TICK


def idle_cpu(root: int, title: str) -> float:
    """CPU-seconds of the living threads of those of the tree whose title begins so; to the nanosecond, where cpu() counts hundredths."""
    total = 0
    for pid in tree(root):
        try:
            if Path(f"/proc/{pid}/cmdline").read_text().startswith(title):
                total += sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir())
        except OSError:
            continue
    return total / 1e9


def memory(root: int) -> int:
    """Bytes of a process tree, what is shared counted once."""
    total = 0
    for pid in tree(root):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total * 1024


def _busy() -> float:
    """CPU-seconds that the whole machine has worked since it started, stolen time included."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:])
    return (user + nice + system + irq + softirq + steal) / _TICK


@dataclass
class Cost:
    seconds: float = 0  # by the clock
    cpu: float = 0  # CPU-seconds of the measured processes
    peak: int = 0  # bytes of the measured processes, sampled
    broker: float = 0  # CPU-seconds of the broker
    others: float = 0  # share of the machine that everything else took, 0 to 1


class Meter:
    """Measures what happens within the block: the tree of `server` (0: none), and programs run with run()."""

    def __init__(self, server: int, broker: int) -> None:
        self.server = server
        self.broker = broker
        self.cost = Cost()
        self._programs = 0.0
        self._program = 0  # that runs now
        self._end = threading.Event()

    def _now(self) -> tuple[float, float, float, float, float]:
        own = os.times()
        return (
            time.monotonic(), cpu(self.server) if self.server else 0.0, cpu(self.broker), _busy(), own.user + own.system,
        )  # fmt: skip

    def _sample(self) -> None:
        roots = [root for root in (self.server, self._program) if root]
        self.cost.peak = max(self.cost.peak, sum(memory(root) for root in roots))

    def _watch(self) -> None:
        while not self._end.wait(_SAMPLE):
            self._sample()

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._now()
        self._end.set()
        self._thread.join()
        self._sample()
        seconds, server, broker, busy, own = (b - a for a, b in zip(self._before, after))
        cost = self.cost
        cost.seconds, cost.cpu, cost.broker = seconds, server + self._programs, broker
        cost.others = max(0.0, (busy - server - self._programs - broker - own) / (seconds * _CPUS))

    def run(self, command: Sequence[str | Path]) -> str:
        """Runs a program and returns what it prints; its CPU and memory count."""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            self._program = process.pid
            output = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            self._program = 0
            process.returncode = os.waitstatus_to_exitcode(status)
        self._programs += usage.ru_utime + usage.ru_stime
        if not self.server:
            self.cost.peak = max(self.cost.peak, usage.ru_maxrss * 1024)
        if process.returncode:
            raise RuntimeError(f"{command[0]} failed")
        return output
