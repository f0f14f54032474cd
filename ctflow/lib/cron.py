"""Cron expressions of five fields, as people write them, and as Kubeflow Pipelines reads them.

Fields: minute, hour, day of the month, month, day of the week (0 and 7 are Sunday). Each is a list
of ``*``, ``N``, ``A-B``, with ``/STEP`` behind it where wanted; months and days have names too.
KFP's reader is version 1 of Go's robfig/cron. Its rules hold here: where the day of the month or
the day of the week holds a ``*``, a day has to fit both, else one of them; ``N/STEP`` goes from N
to the end; a range never wraps around. No Python library has these rules. Times are UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta, timezone

from ctflow.lib.quick import dataclass

_MONTHS = {name: at for at, name in enumerate(
    ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"), 1
)}  # fmt: skip
_DAYS = {name: at for at, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
#: Name, least, greatest and the words of each field.
_FIELDS: tuple[tuple[str, int, int, Mapping[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _DAYS),
)
#: What the short forms stand for.
SHORT = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
#: Days that are looked through for the next time: 29 February may be eight years away.
_HORIZON = 366 * 9


@dataclass(frozen=True)
class Cron:
    """When something happens.

    Attributes:
        both: whether a day has to fit the day of the month and the day of the week.
        weekdays: 0 is Sunday.
        six: the expression with seconds, as KFP takes it.
    """

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    both: bool
    six: str

    def next(self, after: float) -> float | None:
        """The first time after ``after`` (seconds since the epoch); None where there is none."""
        start = datetime.fromtimestamp(after, timezone.utc).replace(second=0, microsecond=0)
        start += timedelta(minutes=1)
        day = start.replace(hour=0, minute=0)
        for _ in range(_HORIZON):
            if self._fits(day):
                for hour in self.hours:
                    for minute in self.minutes:
                        found = day.replace(hour=hour, minute=minute)
                        if found >= start:
                            return found.timestamp()
            day += timedelta(days=1)
        return None

    def _fits(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        fits = (day.day in self.days, day.isoweekday() % 7 in self.weekdays)
        return all(fits) if self.both else any(fits)


def parse(text: str) -> Cron:
    """Read an expression of five fields, or a short form such as ``@daily``.

    Raises:
        ValueError: it is none, or it names a time that never comes.
    """
    words = SHORT.get(text.strip().lower(), text).split()
    if text.strip().startswith("@") and len(words) != 5:
        known = ", ".join(SHORT)
        raise ValueError(f"{text!r} is none of {known}; for `@every 1h` write `interval: 1h`")
    if len(words) != 5:
        raise ValueError(
            f"{text!r} has {len(words)} field{'s'[: len(words) != 1]}, and five are wanted:"
            " minute, hour, day of the month, month, day of the week"
        )
    read = [_field(word, *field) for word, field in zip(words, _FIELDS, strict=True)]
    minutes, hours, days, months, weekdays = (found for found, _, _ in read)
    made = Cron(
        tuple(sorted(minutes)),
        tuple(sorted(hours)),
        frozenset(days),
        frozenset(months),
        frozenset(day % 7 for day in weekdays),
        read[2][1] or read[4][1],
        " ".join(["0", *(word for _, _, word in read)]),
    )
    if made.next(0.0) is None:
        raise ValueError(f"{text!r} never comes: no such month has such a day")
    return made


def _field(
    word: str, name: str, least: int, greatest: int, words: Mapping[str, int]
) -> tuple[set[int], bool, str]:
    """The values of a field, whether a ``*`` is in it, and how KFP takes it."""
    found: set[int] = set()
    star = False
    shown: list[str] = []
    for part in word.split(","):
        base, slash, step_text = part.partition("/")
        low, dash, high = base.partition("-")
        if base in ("*", "?"):
            # Seven is Sunday again.
            start, end, star = least, min(greatest, 6) if words is _DAYS else greatest, True
        else:
            start = _value(low, name, least, greatest, words)
            end = _value(high, name, least, greatest, words) if dash else start
            if slash and not dash:
                end = 6 if words is _DAYS else greatest
            if start > end:
                raise ValueError(f"{name} {part!r} goes backwards; write it as two ranges")
        if slash and (not step_text.isdecimal() or not step_text.isascii() or int(step_text) == 0):
            raise ValueError(f"{name} {part!r} has no step of 1 or more")
        values = range(start, end + 1, int(step_text) if slash else 1)
        found.update(values)
        text = part.upper() if words else part
        if words is _DAYS and 7 in values:
            # KFP refuses it.
            text = ",".join(str(day) for day in sorted({day % 7 for day in values}))
        shown.append(text)
    return found, star, ",".join(shown)


def _value(text: str, name: str, least: int, greatest: int, words: Mapping[str, int]) -> int:
    if text.lower() in words:
        return words[text.lower()]
    if not text.isdecimal() or not text.isascii() or len(text) > 4:
        also = f", or a name such as {next(iter(words)).upper()}" if words else ""
        raise ValueError(f"{name} {text!r} is not a number from {least} to {greatest}{also}")
    if not least <= int(text) <= greatest:
        raise ValueError(f"{name} {text} is not within {least} to {greatest}")
    return int(text)
