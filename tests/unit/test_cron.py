"""Cron expressions: what people write, what KFP is sent, and when it is."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from ctflow.lib import cron


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def times(text: str, after: str, count: int) -> list[str]:
    found, now = [], at(after)
    for _ in range(count):
        now = cron.parse(text).next(now) or 0.0
        found.append(datetime.fromtimestamp(now, timezone.utc).strftime("%Y-%m-%d %H:%M:%S"))
    return found


@pytest.mark.parametrize(
    ("text", "six"),
    [
        ("0 3 * * *", "0 0 3 * * *"),
        ("@daily", "0 0 0 * * *"),
        (" @Weekly ", "0 0 0 * * 0"),
        ("*/15 8-18/2 1,15 jan-mar mon-fri", "0 */15 8-18/2 1,15 JAN-MAR MON-FRI"),
        ("0 0 * * 7", "0 0 0 * * 0"),  # KFP refuses a 7
        ("0 0 * * 5-7", "0 0 0 * * 0,5,6"),
        ("0 0 * * 1-7/2", "0 0 0 * * 0,1,3,5"),
        ("0 0 * * 1,7", "0 0 0 * * 1,0"),
        ("0 0 ? * 1", "0 0 0 ? * 1"),
        ("5/20 * * * *", "0 5/20 * * * *"),
    ],
)
def test_five_fields_become_six(text: str, six: str) -> None:
    assert cron.parse(text).six == six


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 0 3 * * *", "6 fields, and five are wanted"),
        ("", "0 fields"),
        ("* * * *", "4 fields"),
        ("60 * * * *", "minute 60 is not within 0 to 59"),
        ("0 24 * * *", "hour 24"),
        ("0 0 0 * *", "day of the month 0"),
        ("0 0 * 13 *", "month 13"),
        ("0 0 * * 8", "day of the week 8"),
        ("0 0 * * mo", "'mo' is not a number from 0 to 7, or a name such as SUN"),
        ("0 0 * * 5-1", "goes backwards"),
        ("0 0 * * fri-sun", "goes backwards"),
        ("*/0 * * * *", "no step of 1 or more"),
        ("*/x * * * *", "no step"),
        ("1-2-3 * * * *", "'2-3' is not a number"),
        ("1,,2 * * * *", "'' is not a number"),
        ("-1 * * * *", "'' is not a number"),
        ("1e1 * * * *", "is not a number"),
        ("\u0663 * * * *", "is not a number"),
        ("0 0 L * *", "'L' is not a number"),
        ("0 0 30 2 *", "never comes"),
        ("@every 1h", "interval: 1h"),
        ("@reboot", "is none of"),
    ],
)
def test_what_kfp_would_refuse_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        cron.parse(text)


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("0 3 * * *", "2026-11-28 02:59:59", ["2026-11-28 03:00:00", "2026-11-29 03:00:00"]),
        # A time itself is over.
        ("0 3 * * *", "2026-11-28 03:00:00", ["2026-11-29 03:00:00"]),
        ("*/20 22,23 * * *", "2026-12-31 23:10:00",
         ["2026-12-31 23:20:00", "2026-12-31 23:40:00", "2027-01-01 22:00:00"]),
        ("0 0 29 2 *", "2026-01-01 00:00:00", ["2028-02-29 00:00:00", "2032-02-29 00:00:00"]),
        ("0 0 29 2 *", "2096-03-01 00:00:00", ["2104-02-29 00:00:00"]),
        # Both days named: either fits (28 November 2026 is a Saturday).
        ("0 0 1 * mon", "2026-11-28 00:00:00", ["2026-11-30 00:00:00", "2026-12-01 00:00:00"]),
        # One of them holds a star: both have to fit.
        ("0 0 */2 * mon", "2026-11-28 00:00:00", ["2026-12-07 00:00:00", "2026-12-21 00:00:00"]),
        ("0 0 * * sun", "2026-11-28 00:00:00", ["2026-11-29 00:00:00", "2026-12-06 00:00:00"]),
        ("0 0 * * 7", "2026-11-28 00:00:00", ["2026-11-29 00:00:00"]),
        ("5/20 0 * * *", "2026-11-28 00:00:00",
         ["2026-11-28 00:05:00", "2026-11-28 00:25:00", "2026-11-28 00:45:00"]),
    ],
)  # fmt: skip
def test_the_next_times(text: str, after: str, expected: list[str]) -> None:
    assert times(text, after, len(expected)) == expected
