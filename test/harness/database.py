"""A database of a test server, and the comparison of a view with PostgreSQL's own answer."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

import psycopg

from harness.postgres import Postgres
from harness.wait import wait_for

Row = tuple[Any, ...]
_FLOAT_TYPES = {700, 701}


class Database:
    """`connection` is an autocommit connection of the superuser; connect() opens further ones."""

    def __init__(self, server: Postgres, name: str) -> None:
        self.server = server
        self.name = name
        self.connection = server.connect(name)

    def connect(self, user: str = "postgres", **options: Any) -> psycopg.Connection:
        return self.server.connect(self.name, user, **options)

    def execute(self, sql: str, *parameters: Any) -> None:
        self.connection.execute(sql, parameters or None)

    def rows(self, sql: str, *parameters: Any) -> list[Row]:
        return self.connection.execute(sql, parameters or None).fetchall()

    def refusal(self, sql: str) -> str:
        """SQLSTATE and message of a statement that must fail."""
        try:
            self.execute(sql)
        except psycopg.Error as error:
            return f"{error.sqlstate} {error}"
        raise AssertionError(f"not refused: {sql}")

    def value(self, sql: str, *parameters: Any) -> Any:
        (row,) = self.rows(sql, *parameters)
        return row[0]

    def flush(self, *streams: str) -> None:
        """Returns when all that the streams' sources hold now is in every view."""
        for stream in streams:
            self.execute("SELECT streamext.flush(%s)", stream)

    def configure(self, setting: str, value: object) -> None:
        """For the whole server; returns when a new look at the setting shows it, so the streams' workers were told too."""
        self.execute(f"ALTER SYSTEM SET {setting} = '{value}'")
        self.server.reload()
        wait_for(lambda: self.value("SELECT setting FROM pg_settings WHERE name = %s", setting) == str(value), what=setting)

    def assert_same(self, actual: str, expected: str, tolerance: float = 1e-9) -> None:
        """Two queries return the same rows, any order: EXCEPT ALL both ways; what differs only by `tolerance`
        (relative, and absolute near zero) in float columns is the same. The oracle for a view v over a stream whose
        rows are also in table t: assert_same("TABLE v", "SELECT … FROM t …")."""
        extra, missing, floats = self._except_all(actual, expected)
        different = len(extra) != len(missing) or not all(
            _alike(a, b, floats, tolerance)
            for a, b in zip(_by_exact_columns(extra, floats), _by_exact_columns(missing, floats))
        )
        assert not different, (
            f"{actual}\ndiffers from\n{expected}\n"
            f"{len(extra)} rows too many, such as {extra[:5]}\n{len(missing)} rows missing, such as {missing[:5]}"
        )

    def _except_all(self, left: str, right: str) -> tuple[list[Row], list[Row], set[int]]:
        """The rows of only the left, of only the right query, each run once; and which of their columns are floats."""
        cursor = self.connection.execute(
            f"""WITH left_ AS MATERIALIZED ({left}), right_ AS MATERIALIZED ({right})
            SELECT * FROM (TABLE left_ EXCEPT ALL TABLE right_) AS a, (VALUES (true)) AS side
            UNION ALL SELECT * FROM (TABLE right_ EXCEPT ALL TABLE left_) AS b, (VALUES (false)) AS side"""
        )
        floats = {i for i, column in enumerate(cursor.description or []) if column.type_code in _FLOAT_TYPES}
        rows = cursor.fetchall()
        return [row[:-1] for row in rows if row[-1]], [row[:-1] for row in rows if not row[-1]], floats


@contextmanager
def temporary_database(server: Postgres) -> Iterator[Database]:
    """A new one with the extension, on a server that may be crashed meanwhile; settings of ALTER SYSTEM go with it."""
    name = f"t{os.urandom(4).hex()}"
    server.create_database(name)
    database = Database(server, name)
    yield database
    database.connection.close()
    with server.connect() as admin:
        admin.execute("ALTER SYSTEM RESET ALL")
        server.reload()
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _by_exact_columns(rows: list[Row], floats: set[int]) -> list[Row]:
    """In an order that depends on float columns last, and there only down to a millionth."""

    def key(row: Row) -> tuple[list[str], list[str]]:
        exact = [repr(_canonical(value)) for i, value in enumerate(row) if i not in floats]
        return exact, [repr(None if row[i] is None else float(f"{row[i]:.6g}") + 0.0) for i in sorted(floats)]

    return sorted(rows, key=key)


def _canonical(value: Any) -> Any:
    """Equal numerics look the same: which of 1.0 and 1.00 stands for their group is open."""
    return value.normalize() if isinstance(value, Decimal) and not value.is_nan() else value


def _alike(a: Row, b: Row, floats: set[int], tolerance: float) -> bool:
    def same(i: int) -> bool:
        if i in floats and a[i] is not None and b[i] is not None:
            if math.isnan(a[i]) or math.isnan(b[i]):
                return math.isnan(a[i]) and math.isnan(b[i])
            return math.isclose(a[i], b[i], rel_tol=tolerance, abs_tol=tolerance)
        return repr(_canonical(a[i])) == repr(_canonical(b[i]))

    return all(same(i) for i in range(len(a)))
