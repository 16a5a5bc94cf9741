"""A throwaway PostgreSQL server."""

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

from harness.server import Server
from harness.wait import wait_for

PG_CONFIG = os.environ.get("PG_CONFIG", "/usr/lib/postgresql/15/bin/pg_config")

FAST = signal.SIGINT
IMMEDIATE = signal.SIGQUIT


def pg_config(item: str) -> Path:
    return Path(subprocess.check_output([PG_CONFIG, f"--{item}"], text=True).strip())


class Postgres(Server):
    """Superuser postgres, no passwords, a unix socket in `dir` and TCP on 127.0.0.1:`port`. `preload` is
    shared_preload_libraries; `fsync` is for tests of what survives a crash of the machine. `copy_of`: not a new server, but
    what pg_basebackup makes of a running one, `standby`: that follows it. `bindir`: of another version."""

    name = "postgres"
    stop_signal = FAST
    kill_signal = IMMEDIATE  # takes the server's processes along

    def __init__(
        self,
        preload: str = "streamext",
        fsync: bool = False,
        settings: Mapping[str, object] | None = None,
        copy_of: "Postgres | None" = None,
        standby: bool = False,
        bindir: Path | None = None,
    ) -> None:
        # PostgreSQL does not run as root; the Debian package brings the user postgres.
        super().__init__(user="postgres" if os.geteuid() == 0 else None)
        self.bindir = bindir or pg_config("bindir")
        self.data = self.dir / "data"
        self._template = ""
        if copy_of is None:
            self._run_as_owner(
                "initdb", "--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C.UTF-8",
                "--username=postgres", "--auth=trust", f"--pgdata={self.data}",
            )  # fmt: skip
        else:
            self._run_as_owner(
                "pg_basebackup", "--no-sync", "--checkpoint=fast", f"--pgdata={self.data}", f"--host={copy_of.dir}",
                f"--port={copy_of.port}", "--username=postgres", *(["--write-recovery-conf"] if standby else []),
            )  # fmt: skip
        defaults = {
            "shared_preload_libraries": preload,
            "fsync": fsync,
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.dir,
            "max_worker_processes": 32,
            "max_connections": 100,
            "max_prepared_transactions": 5,
            "log_line_prefix": "%m [%p] %b %d ",
        }
        self.configure(defaults | dict(settings or {}))

    def configure(self, settings: Mapping[str, object]) -> None:
        """Adds to postgresql.conf; restart() or reload() brings it in."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def promote(self) -> None:
        """Returns when the standby accepts writes."""
        self.psql("SELECT pg_promote()")

    def follow(self, other: "Postgres") -> None:
        """A server that was stopped becomes a standby of the one that was promoted in its place, by pg_rewind."""
        self._run_as_owner(
            "pg_rewind", "--no-sync", "--write-recovery-conf", f"--target-pgdata={self.data}",
            f"--source-server=host={other.dir} port={other.port} user=postgres dbname=postgres",
        )  # fmt: skip
        self.configure({"port": self.port, "unix_socket_directories": self.dir})
        self.start()

    def children(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def kill9(self) -> None:
        """Of the postmaster; returns when its processes have noticed and ended: until then no other server takes the directory."""
        orphans = self.children() if self.is_running() else []
        super().kill9()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), what="end of the orphans")

    def reload(self) -> None:
        self.send(signal.SIGHUP)

    def _run_as_owner(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self.bindir / program, *arguments],
            cwd=self.dir, capture_output=True, text=True, env=os.environ | {"PGCTLTIMEOUT": "600"}, **self.identity,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")

    def command(self) -> list[str | Path]:
        return [self.bindir / "postgres", "-D", self.data]

    def is_ready(self) -> bool:
        try:
            self.connect().close()
            return True
        except psycopg.OperationalError:
            return False

    def connect(self, dbname: str = "postgres", user: str = "postgres", **options: Any) -> psycopg.Connection:
        """An autocommit connection."""
        options = {"autocommit": True} | options
        return psycopg.connect(host=str(self.dir), port=self.port, dbname=dbname, user=user, **options)

    def run(self, program: str, *arguments: str | Path, input: str | None = None) -> str:
        """Runs one of PostgreSQL's client programs against the server; returns what it prints."""
        done = subprocess.run(
            [self.bindir / program, *arguments],
            env=os.environ | self.environment(), input=input, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def psql(self, sql: str, dbname: str = "postgres", user: str = "postgres") -> str:
        """What psql prints for a script, unaligned and without headings; stops at the first error."""
        return self.run(
            "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", dbname, "-U", user, "-f", "-", input=sql
        ).rstrip("\n")

    def create_database(self, name: str) -> None:
        """With the extension: a copy of one that is made when it is asked for first, in a quarter of the time that CREATE EXTENSION takes.
        Nobody may connect to that one, so a copy waits for nobody."""
        with self.connect() as admin:
            if not self._template:
                template = f"template_{os.urandom(4).hex()}"
                admin.execute(f"CREATE DATABASE {template}")
                with self.connect(template) as session:
                    session.execute("CREATE EXTENSION streamext")
                admin.execute(f"ALTER DATABASE {template} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true")
                self._template = template
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {self._template}")

    def environment(self) -> dict[str, str]:
        """What libpq programs need to find the server."""
        return {"PGHOST": str(self.dir), "PGPORT": str(self.port), "PGUSER": "postgres"}

    def kill_backend(self, pid: int, number: int = signal.SIGKILL) -> None:
        """kill -9, or another signal, of one process; returns when the server has recovered and accepts connections again."""
        before = self.log_file.stat().st_size
        os.kill(pid, number)
        wait_for(lambda: "all server processes terminated" in self.log(before), what="crash restart")
        wait_for(self.is_ready, what="recovery")
