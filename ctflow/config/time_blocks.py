"""Blocks of time, such as weeks: neighbours in a series go the same way."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone

from ctflow.errors import ConfigError

#: Blocks are counted from here: a Monday.
_ORIGIN = datetime(1970, 1, 5, tzinfo=timezone.utc)
_LENGTH = re.compile(r"([1-9]\d{0,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
#: What fromisoformat of Python 3.10 cannot read: a fraction that has not 3 or 6 digits.
_FRACTION = re.compile(r"(?<=:\d\d)\.(\d+)")


def block_length(block: str) -> timedelta:
    """The length of a block, from a text such as ``12h``, ``7d``, ``4w``. Raises ValueError."""
    match = _LENGTH.fullmatch(block)
    if not match:
        raise ValueError(f"{block!r} is not a length such as 12h, 7d or 4w")
    return int(match[1]) * _UNITS[match[2]]


def block_of(time: str, block: str) -> int:
    """The number of the block that a time is in.

    Args:
        time: as in ISO 8601, a date or a date with a time; without a zone it is taken for UTC.

    Raises:
        ConfigError: it is no such time.
    """
    text = _FRACTION.sub(lambda found: f".{found[1][:6]:0<6}", time.strip())
    text = text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(
            f"{time[:40]!r} is not a time",
            next="write 2026-03-31 or 2026-03-31T14:00:00",
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - _ORIGIN) // block_length(block)
