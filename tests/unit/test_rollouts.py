"""Rollouts as decisions: every way through one, on a clock of the test's own."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctflow.rollouts import (
    CHECK_EVERY,
    Check,
    Commit,
    Confirm,
    Done,
    GoBack,
    Seen,
    Shift,
    Start,
    Step,
    Wait,
    Wanted,
    decide,
)


class World:
    """Does what is decided, and notes it; a check takes no time, and ``bad`` makes it fail."""

    def __init__(self, wanted: Wanted, serves: str | None = "old") -> None:
        self.wanted = wanted
        self.seen = Seen(now=1000.0, serves=serves)
        self.steps: list[Step] = []
        self.bad_at: int | None = None

    def step(self) -> Step:
        step = decide(self.wanted, self.seen)
        self.steps.append(step)
        seen = self.seen
        if isinstance(step, Start):
            seen = replace(seen, ready=True)
        elif isinstance(step, Check):
            bad = self.bad_at is not None and seen.share >= self.bad_at
            seen = replace(seen, checked=seen.now, fault="it is bad" if bad else "")
        elif isinstance(step, Shift):
            seen = replace(seen, share=step.percent, since=seen.now, checked=None)
        elif isinstance(step, Wait):
            seen = replace(seen, now=seen.now + step.seconds)
        elif isinstance(step, Confirm):
            seen = replace(seen, confirmed=True)
        elif isinstance(step, Commit):
            seen = replace(seen, committed=True)
        elif isinstance(step, GoBack):
            seen = replace(seen, share=0)
        self.seen = seen
        return step

    def run(self) -> list[Step]:
        for _ in range(10_000):
            if isinstance(self.step(), (Done, GoBack)):
                return self.steps
        raise AssertionError("it does not end")

    def shares(self) -> list[int]:
        return [step.percent for step in self.steps if isinstance(step, Shift)]


def test_all_at_once() -> None:
    assert World(Wanted("new")).run() == [
        Start(), Check(), Shift(100), Confirm(), Commit(), Done(),
    ]  # fmt: skip


def test_where_nothing_serves_there_is_no_canary() -> None:
    world = World(Wanted("new", (10, 50), 60.0), serves=None)
    world.run()
    assert world.shares() == [100]


def test_each_canary_step_is_held_and_checked_at_its_end() -> None:
    world = World(Wanted("new", (10, 50, 100), 60.0))
    world.run()
    assert world.shares() == [10, 50, 100]
    assert world.seen.now == pytest.approx(1120.0)
    begun = world.steps.index(Shift(10))
    ended = world.steps.index(Shift(50))
    held = world.steps[begun + 1 : ended]
    assert held == [Wait(CHECK_EVERY), Check()] * 12


def test_a_short_pause_is_checked_in_it_too() -> None:
    world = World(Wanted("new", (10,), 0.4))
    world.run()
    begun, ended = world.steps.index(Shift(10)), world.steps.index(Shift(100))
    assert sum(isinstance(step, Check) for step in world.steps[begun:ended]) == 4
    assert world.seen.now == pytest.approx(1000.4)


def test_without_a_pause_the_steps_follow_each_other() -> None:
    world = World(Wanted("new", (10, 50), 0.0))
    world.run()
    assert world.shares() == [10, 50, 100]
    assert world.seen.now == 1000.0


@pytest.mark.parametrize(("bad_at", "shares"), [(0, []), (10, [10]), (50, [10, 50])])
def test_a_fault_goes_back_at_once(bad_at: int, shares: list[int]) -> None:
    world = World(Wanted("new", (10, 50), 60.0))
    world.bad_at = bad_at
    assert world.run()[-1] == GoBack("it is bad")
    assert world.shares() == shares


def test_a_server_that_ended_during_a_step_goes_back() -> None:
    seen = Seen(1000.0, "old", ready=False, checked=990.0, share=10, since=980.0, fault="it ended")
    assert decide(Wanted("new", (10,), 60.0), seen) == GoBack("it ended")


def test_an_interrupted_one_goes_on_from_what_is_seen() -> None:
    wanted = Wanted("new", (10, 50), 60.0)
    # Somebody else has shifted it to 10% some 30 s ago; we come in.
    seen = Seen(1000.0, "old", ready=True, checked=999.0, share=10, since=970.0)
    assert decide(wanted, seen) == Wait(4.0)
    # Nobody has looked for an hour: it is looked at before it gets more.
    late = replace(seen, now=4600.0)
    assert decide(wanted, late) == Check()
    assert decide(wanted, replace(late, checked=4600.0)) == Shift(50)
    # All traffic is on it, and nobody has said that it stays.
    assert decide(wanted, replace(seen, share=100)) == Confirm()
    assert decide(wanted, replace(seen, share=100, confirmed=True)) == Commit()


@given(
    canary=st.lists(st.integers(1, 120), max_size=5).map(lambda one: tuple(sorted(set(one)))),
    pause=st.just(0.0) | st.floats(0.01, 1000),
    bad_at=st.none() | st.integers(0, 100),
    cuts=st.lists(st.integers(0, 40), max_size=3),
)
def test_it_ends_with_one_of_both_and_never_more_traffic_than_checked(
    canary: tuple[int, ...], pause: float, bad_at: int | None, cuts: list[int]
) -> None:
    """However it is cut and gone on with: shares rise, each after a check of the one before."""
    world = World(Wanted("new", canary, pause))
    world.bad_at = bad_at
    steps = 0
    while not isinstance(world.step(), (Done, GoBack)):
        steps += 1
        assert steps < 10_000
        if steps in cuts:
            world.seen = replace(world.seen, now=world.seen.now + 77.0)
    shares = world.shares()
    assert shares == sorted(set(shares))
    if bad_at is None:
        assert world.steps[-2:] == [Commit(), Done()]
        assert shares[-1] == 100
    else:
        least = [share for share in (0, *shares) if share >= bad_at]
        assert len(least) <= 1 or shares[-1] == 100
        if shares and shares[-1] < 100:
            assert isinstance(world.steps[-1], GoBack)
    for before, after in zip(world.steps, world.steps[1:], strict=False):
        if isinstance(after, Shift):
            assert isinstance(before, Check)
