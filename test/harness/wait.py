"""Waiting on a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def wait_for(condition: Callable[[], Result], timeout: float = 30, what: str = "the condition") -> Result:
    """Polls until `condition` returns something true, and returns that; TimeoutError tells the last value."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {timeout} s, last: {result!r}")
        time.sleep(0.01)
    return result
