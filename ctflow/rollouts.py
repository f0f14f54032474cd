"""A rollout as a decision: what is wanted, and what is seen, give the next step.

Nothing is done and nothing waits here. Whoever rolls out (the local server, a command that waits,
an agent) looks, asks ``decide``, does that one step, and looks again. So a rollout that was
interrupted goes on from what is seen, whoever continues it.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Seconds between two checks during a canary step, at most.
CHECK_EVERY = 5.0


@dataclass(frozen=True)
class Wanted:
    """What shall serve, and on which way.

    Attributes:
        release: names the release.
        canary: percentages of the traffic to go through; those from 100 on are the end itself.
        pause: seconds that each of them is held for.
    """

    release: str
    canary: tuple[int, ...] = ()
    pause: float = 0.0


@dataclass(frozen=True)
class Seen:
    """How far the wanted release is.

    Attributes:
        now: the time, in seconds of any clock.
        serves: what serves all traffic that does not go to the wanted release; None: nothing does.
        ready: whether its server answers.
        share: the percentage of the traffic that goes to it; ``since`` when it was set.
        checked: when it was found good last with this share; None: not yet.
        confirmed: whether the address that users have gave its answer, with all traffic on it.
        committed: whether it is kept, so that nothing leads back any more.
        fault: why it must not serve; empty: nothing is known against it.
    """

    now: float
    serves: str | None = None
    ready: bool = False
    share: int = 0
    since: float = 0.0
    checked: float | None = None
    confirmed: bool = False
    committed: bool = False
    fault: str = ""


@dataclass(frozen=True)
class Start:
    """Start its server beside what serves."""


@dataclass(frozen=True)
class Check:
    """See whether it is good: golden requests, and errors beside those of what serves."""


@dataclass(frozen=True)
class Shift:
    """Give it this percentage of the traffic."""

    percent: int


@dataclass(frozen=True)
class Wait:
    """There is nothing to do for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Confirm:
    """Send a real prediction through the address that users have."""


@dataclass(frozen=True)
class Commit:
    """Keep it: it is the last good release from now on."""


@dataclass(frozen=True)
class GoBack:
    """All traffic to what served before; the new one's server ends."""

    reason: str


@dataclass(frozen=True)
class Done:
    """It serves."""


Step = Start | Check | Shift | Wait | Confirm | Commit | GoBack | Done


def decide(wanted: Wanted, seen: Seen) -> Step:
    """The next step of a rollout."""
    if seen.committed and not seen.fault:
        return Done()
    if seen.fault:
        return GoBack(seen.fault)
    if not seen.ready:
        return Start()
    if seen.share >= 100:
        return Commit() if seen.confirmed else Confirm()
    # Where nothing serves yet there is nobody to keep from a bad model: all at once.
    ladder = [percent for percent in wanted.canary if percent < 100] if seen.serves else []
    if seen.share:
        end = seen.since + wanted.pause
        if seen.checked is None or seen.checked < end:  # it is checked when the pause is over, too
            due = min(_next_check(seen, wanted.pause), end)
            return Check() if seen.now >= due else Wait(due - seen.now)
    elif seen.checked is None:
        return Check()
    return Shift(next((percent for percent in ladder if percent > seen.share), 100))


def _next_check(seen: Seen, pause: float) -> float:
    last = seen.since if seen.checked is None else seen.checked
    return last + min(CHECK_EVERY, max(pause / 4, 0.05))
