"""Many models on one evaluation set: what each may spend, and the record of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctflow.config.gate_rules import GateRule
from ctflow.errors import ConfigError, OutsideError
from ctflow.gate import Champion, judge
from ctflow.gate.files.evidence import Predictions
from ctflow.gate.intervals.significance import percentile_interval
from ctflow.gate.looks import MANY_OPENINGS, at_look, look_note, ordinal, used_up
from ctflow.gate.reserved import reserved_rules
from ctflow.model import Verdict
from ctflow.release.looks import (
    KEPT_SETS,
    looks_at,
    looks_in_git,
    merged,
    with_model,
    with_newest,
    write_looks,
)
from ctflow.stores.folder_looks import FolderLooks

KEY = "evaluate.predictions"


def rule(**says: Any) -> GateRule:
    told = {"metric": "accuracy", "over": "champion", "predictions": KEY} | says
    return GateRule.model_validate(told)


def model(wrong: Any, n: int = 400) -> Predictions:
    labels = np.arange(n) % 2
    given = np.where(wrong, 1 - labels, labels)
    columns = {"label": [*map(str, labels)], "prediction": [*map(str, given)]}
    return Predictions([f"e{i:04}" for i in range(n)], columns, Path("p.csv"))


def first(count: int, n: int = 400) -> Predictions:
    return model(np.arange(n) < count, n)


def verdict(
    said: GateRule, ours: Predictions, theirs: Predictions, place: int | None = None
) -> Verdict:
    return judge(
        project="p", environment="staging", run="r-1", rules=[said], metrics={},
        predictions={KEY: ours}, champion=Champion("sha256:old", {}, {KEY: theirs}),
        challenger="sha256:new", looks={} if place is None else {KEY: place},
    )  # fmt: skip


@pytest.mark.parametrize("looks", ["auto", 20])
def test_all_attempts_together_spend_the_level_once(looks: Any) -> None:
    places = range(1, 21 if looks == 20 else 5_000)
    spent = [1 - at_look(rule(looks=looks), place).confidence for place in places]
    assert sum(spent) == pytest.approx(0.05, rel=1e-3)
    assert sum(spent) <= 0.05 + 1e-12
    assert at_look(rule(), 7).confidence == 0.95


def test_a_later_attempt_needs_more(capsys: pytest.CaptureFixture[str]) -> None:
    ours, theirs = first(40), first(52)
    assert verdict(rule(looks="auto"), ours, theirs, 1).decision == "promote"
    late = verdict(rule(looks="auto"), ours, theirs, 40)
    assert late.decision == "hold"
    assert "attempt 40 on the evaluation set of evaluate.predictions" in late.notes
    assert verdict(rule(), ours, theirs, 40).decision == "promote"


def test_an_attempt_beyond_those_planned_is_a_hold() -> None:
    ours, theirs = first(0), first(100)
    assert verdict(rule(looks=3), ours, theirs, 3).decision == "promote"
    found = verdict(rule(looks=3), ours, theirs, 4)
    assert found.decision == "hold"
    assert "attempt 4" in found.reasons[0].text
    assert "evaluate on new examples" in found.reasons[0].text


def test_what_guards_against_many_attempts_is_said() -> None:
    ours, theirs = first(0), first(100)
    assert not any("guard" in note for note in verdict(rule(), ours, theirs, 1).notes)
    assert any(
        "`confirm:` or `looks:` guards" in note for note in verdict(rule(), ours, theirs, 2).notes
    )
    assert verdict(rule(), ours, theirs).notes == ()


def test_the_warning_is_there_while_any_rule_is_without_a_guard() -> None:
    ours, theirs = first(0), first(100)
    guarded = rule(confirm="evaluate.reserved")
    for rules, warned in (
        ([rule(), guarded], True),
        ([guarded, rule()], True),
        ([guarded, rule(looks="auto")], False),
    ):
        found = judge(
            project="p", environment="staging", run="r-1", rules=rules, metrics={},
            predictions={KEY: ours}, champion=Champion("sha256:old", {}, {KEY: theirs}),
            challenger="sha256:new", looks={KEY: 2},
        )  # fmt: skip
        (note,) = found.notes
        assert ("chance adds up" in note) == warned


def reserved(**says: Any) -> GateRule:
    """The rule as it is asked of the reserved set."""
    (found,) = reserved_rules([rule(confirm="evaluate.reserved", **says)])["evaluate.reserved"]
    return found


def test_the_openings_of_a_reserved_set_are_said() -> None:
    name = "evaluate.reserved was opened for the"
    assert look_note([reserved()], 1) == ""
    assert look_note([reserved()], 3) == f"{name} 3rd time"
    assert look_note([reserved(looks="auto")], 22) == f"{name} 22nd time"
    assert look_note([reserved(looks=5)], 1) == f"{name} 1st time, of 5"
    many = look_note([reserved()], MANY_OPENINGS)
    assert many.startswith(f"{name} 10th time: chance adds up over openings; reserve new examples")
    # One rule of two without a share of the level is enough to be warned of.
    assert "chance" in look_note([reserved(looks="auto"), reserved()], MANY_OPENINGS)
    assert [ordinal(n) for n in (1, 2, 3, 4, 11, 12, 13, 21, 102, 111)] == [
        "1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "102nd", "111th",
    ]  # fmt: skip


def test_with_confirm_the_openings_share_the_level_and_not_the_attempts() -> None:
    first_set = rule(confirm="evaluate.reserved", looks=4)
    assert at_look(first_set, 9).confidence == 0.95
    assert used_up(first_set, 9) == ""
    assert look_note([first_set], 9) == "attempt 9 on the evaluation set of evaluate.predictions"
    spent = [1 - at_look(reserved(looks=4), place).confidence for place in range(1, 5)]
    assert sum(spent) == pytest.approx(0.05)
    assert used_up(reserved(looks=4), 4) == ""
    assert used_up(reserved(looks=4), 5) == (
        "opened for the 5th time, and `looks: 4` allows 4: reserve new examples"
    )
    assert at_look(reserved(), 50).confidence == 0.95


@pytest.mark.parametrize(
    ("says", "fact"),
    [
        ({"confirm": KEY}, "another output"),
        ({"confirm": "reserved"}, "task.output"),
        ({"over": None, "min": 0.5, "confirm": "evaluate.reserved"}, "over the champion"),
    ],
)
def test_a_reserved_set_that_is_none_is_refused(says: dict[str, Any], fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        rule(**says)


@pytest.mark.parametrize("says", [{"looks": 0}, {"looks": "many"}, {"looks": -3}])
def test_a_number_of_attempts_that_is_none_is_refused(says: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="looks"):
        rule(**says)
    with pytest.raises(ValueError, match="over the champion"):
        GateRule.model_validate({"metric": "accuracy", "min": 0.5, "looks": 3})


def test_many_equal_models_on_one_set_get_through_no_more_often_than_one() -> None:
    """Forty chains of thirty pushes: without looks a fifth and more of them let one through."""
    rng = np.random.default_rng(9)
    chains, pushes, n = 40, 30, 300
    through = {"auto": 0, None: 0}
    for _ in range(chains):
        ease = rng.standard_normal(n)
        answers = 0.9 * ease + 0.44 * rng.standard_normal((pushes + 1, n)) > 1.04
        models = [model(wrong, n) for wrong in answers]
        for looks in through:
            through[looks] += any(
                verdict(rule(looks=looks), ours, models[0], place).decision == "promote"
                for place, ours in enumerate(models[1:], 1)
            )
    assert through[None] >= 8
    assert through["auto"] <= 3


def test_a_level_beyond_what_resamples_show_is_not_read_off_them() -> None:
    gains = np.random.default_rng(1).standard_normal(4_000)
    low, high = percentile_interval(gains, 10_000, 1 - 1e-7)
    assert low < -5.2
    assert high > 5.2
    usual = percentile_interval(gains, 10_000, 0.95)
    assert usual[0] == pytest.approx(-1.96, abs=0.1)


def test_the_record_keeps_the_order_and_each_model_once(tmp_path: Path) -> None:
    looks = FolderLooks(tmp_path / "looks")
    assert looks.models("staging") == {}
    for name in ("b", "a", "b"):
        looks.add("staging", "set", name)
    looks.add("production", "set", "c")
    assert looks.models("staging") == {"set": ("b", "a")}
    assert looks.models("production") == {"set": ("c",)}


def test_an_unfinished_line_of_a_killed_process_hurts_nothing(tmp_path: Path) -> None:
    looks = FolderLooks(tmp_path)
    looks.add("staging", "set", "a")
    with (tmp_path / "staging.jsonl").open("a") as stream:
        stream.write('{"set": "se')
    looks.add("staging", "set", "b")
    assert looks.models("staging") == {"set": ("a", "b")}


def test_a_record_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "looks").write_text("")
    with pytest.raises(OutsideError, match="cannot write"):
        FolderLooks(tmp_path / "looks").add("staging", "set", "a")


def test_a_model_has_the_same_place_however_often_it_is_judged() -> None:
    committed, local = {"old": ("x",), "set": ("a",)}, {"set": ("b", "c", "d")}
    place, record = with_model(committed, local, "set", "c")
    assert place == 3
    assert record == {"old": ("x",), "set": ("a", "b", "c")}
    assert list(record) == ["old", "set"]
    # What git has is never lost, also where the model came before it.
    place, record = with_model({"set": ("a", "b", "c")}, local, "set", "b")
    assert (place, record) == (2, {"set": ("a", "b", "c")})
    assert with_model({}, {}, "set", "a") == (1, {"set": ("a",)})
    assert merged({"s": ("a",)}, {"s": ("b", "a"), "t": ("c",)}) == {"s": ("a", "b"), "t": ("c",)}


class OneFile:
    """A repository with one file."""

    def __init__(self, data: bytes | None) -> None:
        self.data = data

    def read(self, rev: str, path: str) -> bytes | None:
        assert path == "deploy/staging/looks.json"
        return self.data


def test_the_committed_record_is_read_back_and_bounded() -> None:
    looks = {f"set{number}": ("a", "b") for number in range(KEPT_SETS + 2)}
    found = looks_at(OneFile(write_looks(looks)), "HEAD", "staging")  # type: ignore[arg-type]
    assert list(found) == list(looks)[2:]
    assert found["set5"] == ("a", "b")
    assert looks_at(OneFile(None), "HEAD", "staging") == {}  # type: ignore[arg-type]


class TwoCommits:
    """A repository whose default branch and proposal hold other records."""

    def __init__(self, base: bytes, proposal: bytes) -> None:
        self.data = {"base": base, "proposal": proposal}

    def read(self, rev: str, path: str) -> bytes | None:
        assert path == "deploy/staging/looks.json"
        return self.data[rev]


def test_what_the_open_proposal_has_seen_counts_too() -> None:
    base, proposal = {"old": ("x",), "set": ("a",)}, {"set": ("a", "b"), "new": ("c",)}
    scm: Any = TwoCommits(write_looks(base), write_looks(proposal))
    assert looks_in_git(scm, "base", None, "staging") == base
    found = looks_in_git(scm, "base", "proposal", "staging")
    assert found == {"old": ("x",), "set": ("a", "b"), "new": ("c",)}
    damaged: Any = TwoCommits(write_looks(base), b"[]")
    assert looks_in_git(damaged, "base", "proposal", "staging") == base
    with pytest.raises(ConfigError, match="restore it from git"):
        looks_in_git(TwoCommits(b"[]", b"{}"), "base", "proposal", "staging")  # type: ignore[arg-type]


def test_what_others_have_seen_meanwhile_is_kept_and_the_judged_sets_come_last() -> None:
    known, mine = {"a": ("1",), "b": ("2",), "c": ("3",)}, {"c": ("3",), "a": ("4", "5")}
    found = with_newest(known, mine)
    assert found == {"b": ("2",), "c": ("3",), "a": ("1", "4", "5")}
    assert list(found) == ["b", "c", "a"]
    assert list(with_newest(found, mine).items()) == list(found.items())


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"sets": {"a": 3}}', b'{"sets": {"a": [3]}}']
)
def test_a_damaged_record_is_said(data: bytes) -> None:
    with pytest.raises(ConfigError, match="restore it from git"):
        looks_at(OneFile(data), "HEAD", "staging")  # type: ignore[arg-type]
