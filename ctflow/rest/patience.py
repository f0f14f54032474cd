"""How often a failing server is asked again, and after what pauses."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping

from ctflow.lib.quick import dataclass

#: Statuses of a server that may do better in a moment.
TEMPORARY = frozenset({408, 429, 502, 503, 504})
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Patience:
    """How often, and how long, a failing server is asked again. ``base`` in seconds."""

    attempts: int = 5
    base: float = 0.25
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, retry_after: float | None) -> None:
        """Pause after failure number ``attempt`` (from 1): as asked, else 2^n with jitter."""
        pause = self.base * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311
        self.sleep(min(_LONGEST_PAUSE, retry_after if retry_after is not None else pause))


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, as the server says; None where it says nothing, or gives a date."""
    try:
        return max(0.0, float(headers.get("Retry-After", "")))
    except ValueError:
        return None
