"""A real standalone cluster of Apache Spark: a master and workers of one core, all on 127.0.0.1, and applications on it."""

import os
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from harness.server import Server, free_port

DEPS = Path(os.environ.get("STREAMEXT_DEPS", ".deps")).resolve() / "spark"
PYTHON = DEPS / "venv" / "bin" / "python"
RUNNER = Path(__file__).resolve().parents[2] / "contrib" / "spark" / "streamext_spark.py"

# A test's processes live shortly: the second compiler and a parallel collector cost more than they bring. Rates are measured without.
SHORT = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"


def _home() -> Path:
    return next((DEPS / "venv" / "lib").glob("python3.*/site-packages/pyspark"))


def _environment(java: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("SPARK_", "PYSPARK_", "PYTHONPATH"))} | {
        "SPARK_HOME": str(_home()),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_DAEMON_JAVA_OPTS": java,
        "SPARK_DAEMON_MEMORY": "256m",
        "PYSPARK_PYTHON": str(PYTHON),
        "PYSPARK_DRIVER_PYTHON": str(PYTHON),
        "TZ": "UTC",
    }


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class _Daemon(Server):
    """One of Spark's own processes. `spark-class` replaces itself by java, so the process is the daemon."""

    def __init__(self, java: str) -> None:
        super().__init__()
        self.web = free_port()
        self.identity = {"env": _environment(java) | {"SPARK_LOG_DIR": str(self.dir), "SPARK_WORKER_DIR": str(self.dir / "work")}}

    def arguments(self) -> list[str]:
        raise NotImplementedError

    def command(self) -> list[str | Path]:
        return [_home() / "bin" / "spark-class", f"org.apache.spark.deploy.{self.name}.{self.name.capitalize()}",
                "--host", "127.0.0.1", "--webui-port", str(self.web), *self.arguments()]  # fmt: skip


class Master(_Daemon):
    name = "master"

    def arguments(self) -> list[str]:
        return ["--port", str(self.port)]

    def is_ready(self) -> bool:
        return _answers(self.port)


class Worker(_Daemon):
    name = "worker"

    def __init__(self, master: Master, java: str, memory: str) -> None:
        super().__init__(java)
        self.master, self.memory = master, memory

    def arguments(self) -> list[str]:
        return ["--port", str(self.port), "--cores", "1", "--memory", self.memory, f"spark://127.0.0.1:{self.master.port}"]

    def is_ready(self) -> bool:
        return "Successfully registered with master" in self.log()

    def executors(self) -> list[int]:
        """Process ids of the executors that this worker runs."""
        return _children(self.process.pid, "CoarseGrainedExecutorBackend") if self.process else []


class Application(Server):
    """`spark-submit` of a program, the driver on this machine. Its output is the log."""

    name = "driver"

    def __init__(self, cluster: "Cluster", program: Path, arguments: Sequence[str], environment: Mapping[str, str], conf: Mapping[str, str]) -> None:
        super().__init__()
        self.cluster, self.program, self.arguments, self.conf = cluster, program, arguments, conf
        self.identity = {"env": _environment("") | dict(environment)}

    def command(self) -> list[str | Path]:
        options = f"-Duser.timezone=UTC {self.cluster.java}"
        conf = {
            "spark.driver.memory": "700m",
            "spark.executor.memory": "700m",
            "spark.executor.cores": "1",
            "spark.driver.host": "127.0.0.1",
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.ui.enabled": "false",
            "spark.local.dir": str(self.dir),
            "spark.executor.extraJavaOptions": options,
            "spark.driver.extraJavaOptions": options,
        } | dict(self.conf)
        jars = ",".join(str(jar) for jar in sorted((DEPS / "jars").glob("*.jar")))
        return [_home() / "bin" / "spark-submit", "--master", self.cluster.address, "--jars", jars,
                *(text for name, value in conf.items() for text in ("--conf", f"{name}={value}")),
                self.program, *self.arguments]  # fmt: skip

    def is_ready(self) -> bool:
        return True

    def wait(self, timeout: float = 300) -> int:
        """Its exit code."""
        assert self.process is not None
        return self.process.wait(timeout)

    def kill9(self) -> None:
        """The driver with its Python, which would live on as a child of nobody."""
        if self.is_running():
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def remove(self) -> None:
        self.kill9()
        super().remove()


class Cluster:
    """As a context manager it runs inside the block and leaves nothing behind."""

    def __init__(self, workers: int = 2, java: str = SHORT, memory: str = "1g") -> None:
        self.java = java
        self.master = Master(java)
        self.workers = [Worker(self.master, java, memory) for _ in range(workers)]
        self.address = f"spark://127.0.0.1:{self.master.port}"
        self.applications: list[Application] = []

    def __enter__(self) -> Self:
        try:
            self.master.start()
            for worker in self.workers:
                worker.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in [*self.applications, *self.workers, self.master]:
            server.remove()

    def submit(self, program: Path, *arguments: str, environment: Mapping[str, str] = {}, conf: Mapping[str, str] = {}) -> Application:
        """Started; read its log, wait() for its end. It ends with the cluster at the latest."""
        application = Application(self, program, arguments, environment, conf)
        self.applications.append(application)
        application.start()
        return application

    def executors(self) -> list[int]:
        return [pid for worker in self.workers for pid in worker.executors()]


def _children(parent: int, word: str) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent), "-f", word], capture_output=True, text=True).stdout
    return [int(pid) for pid in found.split()]
