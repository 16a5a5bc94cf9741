"""The runner, that kills itself in the batch that CRASH names: before:2 before the second transaction commits, after:2 behind it."""

import importlib.util
import os
import signal
import sys
from pathlib import Path

spec = importlib.util.spec_from_file_location("runner", Path(__file__).resolve().parents[2] / "contrib/spark/streamext_spark.py")
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)
MOMENT, BATCH = os.environ["CRASH"].split(":")


class Crashing(runner.Runner):
    batches = 0

    def crash(self, moment: str) -> None:
        if moment == MOMENT and self.batches == int(BATCH):
            os.kill(os.getppid(), signal.SIGKILL)  # the JVM that spark-submit is
            os.kill(os.getpid(), signal.SIGKILL)

    def before_commit(self) -> None:
        self.batches += 1
        self.crash("before")

    def after_commit(self) -> None:
        self.crash("after")


sys.exit(runner.main(Crashing(runner.arguments())))
