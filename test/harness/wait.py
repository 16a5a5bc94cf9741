"""Waiting on a condition instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")


def wait_for(condition: Callable[[], Result], timeout: float = 90, what: str = "the condition") -> Result:
    """Polls until `condition` returns something true, and returns that; TimeoutError tells the last value. The bound is
    for what never comes: on a busy machine a second's work may take a minute."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come true within {timeout} s, last: {result!r}")
        time.sleep(0.01)
    return result
