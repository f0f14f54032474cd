"""Margins count from the last model that showed a gain: a chain of small losses ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ctflow.config.gate_rules import GateRule
from ctflow.gate import Champion, judge
from ctflow.gate.anchors import Anchor, anchor_key, moved_anchors
from ctflow.gate.files.evidence import Predictions
from ctflow.model import Verdict, dump, from_json

KEY = "evaluate.predictions"


def rule(**says: Any) -> GateRule:
    told = {"metric": "accuracy", "over": "champion", "margin": 0.02, "predictions": KEY} | says
    return GateRule.model_validate(told)


def wrong(count: int, n: int = 2_000, **more: list[str]) -> Predictions:
    """A model that is wrong on the first ``count`` examples."""
    labels = np.arange(n) % 2
    given = np.where(np.arange(n) < count, 1 - labels, labels)
    columns = {"label": [*map(str, labels)], "prediction": [*map(str, given)], **more}
    return Predictions([f"e{i:04}" for i in range(n)], columns, Path("p.csv"))


def verdict(
    said: GateRule, ours: Predictions, champion: Predictions, anchor: Anchor | None
) -> Verdict:
    anchors = {anchor_key(said): anchor} if anchor else {}
    serves = Champion("sha256:old", {}, {KEY: champion}, anchors=anchors)
    return judge(
        project="p", environment="staging", run="r-1", rules=[said], metrics={},
        predictions={KEY: ours}, champion=serves, challenger="sha256:new",
    )  # fmt: skip


def test_within_the_margin_of_the_champion_but_not_of_the_anchor() -> None:
    best, champion, ours = wrong(200), wrong(225), wrong(250)
    assert verdict(rule(), ours, champion, None).decision == "promote"
    found = verdict(rule(), ours, champion, Anchor("sha256:" + "a" * 64, best))
    assert found.decision == "hold"
    first, second = found.reasons
    assert (first.rule, first.decision) == ("accuracy over champion", "promote")
    assert (second.rule, second.decision) == ("accuracy over anchor", "hold")
    assert second.text.startswith("accuracy -0.025 over anchor aaaaaaaaaaaa (95% CI ")
    assert from_json(Verdict, json.loads(dump(found))) == found


def test_far_below_the_anchor_is_a_reject() -> None:
    found = verdict(rule(), wrong(400), wrong(390), Anchor("sha256:a", wrong(100)))
    assert [one.decision for one in found.reasons] == ["promote", "reject"]


def test_an_anchor_that_cannot_be_scored_is_a_hold_that_says_why() -> None:
    found = verdict(rule(), wrong(200), wrong(200), Anchor("sha256:a", missing="the store is gone"))
    assert found.decision == "hold"
    assert "the store is gone" in found.reasons[1].text
    other = wrong(100, n=1_000)
    found = verdict(rule(), wrong(200), wrong(200), Anchor("sha256:a", other))
    assert (found.decision, found.reasons[1].text) == (
        "hold", "the anchor a was scored on other examples",
    )  # fmt: skip


def test_each_slice_is_held_to_the_anchor() -> None:
    sides = {"side": ["left"] * 1_000 + ["right"] * 1_000}
    best, champion, ours = (wrong(count, 2_000, **sides) for count in (100, 118, 135))
    found = verdict(rule(by="side"), ours, champion, Anchor("sha256:a", best))
    assert [(one.rule, one.slice, one.decision) for one in found.reasons] == [
        ("accuracy over champion by side", "left", "hold"),
        ("accuracy over champion by side", "right", "promote"),
        ("accuracy over anchor by side", "left", "reject"),
        ("accuracy over anchor by side", "right", "promote"),
    ]


def test_the_anchor_moves_to_a_gain_only() -> None:
    said = rule()
    key = anchor_key(said)

    def after(ours: Predictions, champion: Predictions, anchor: Anchor | None) -> str:
        found = verdict(said, ours, champion, anchor)
        before = {key: anchor.model} if anchor else {}
        return moved_anchors(
            [said], before, "sha256:old", "sha256:new", found.reasons, found.decision
        )[key]

    best = Anchor("sha256:best", wrong(200))
    assert after(wrong(210), wrong(215), best) == "sha256:best"
    assert after(wrong(100), wrong(215), best) == "sha256:new"
    # Better than a champion that fell, and not than the anchor.
    assert after(wrong(199), wrong(300), best) == "sha256:best"
    # The first champion without an anchor is one.
    assert after(wrong(216), wrong(215), None) == "sha256:old"
    assert after(wrong(100), wrong(215), None) == "sha256:new"
    # What serves against the rules, because a person said so, is what later ones are held to.
    assert after(wrong(900), wrong(215), best) == "sha256:new"
    assert moved_anchors([said], {}, None, "sha256:new", [], "promote") == {key: "sha256:new"}
    assert moved_anchors([rule(margin=0)], {}, None, "sha256:new", [], "promote") == {}


@pytest.mark.parametrize("anchored", [True, False])
def test_a_chain_of_small_losses_ends_within_the_margin(anchored: bool) -> None:
    """Each model 0.5 points worse than the one before, all within 2 points of it."""
    said = rule()
    key = anchor_key(said)
    serving, anchors = ("sha256:0", 300), {key: "sha256:0"}
    models = {"sha256:0": 300}
    for push in range(1, 40):
        ours = (f"sha256:{push}", serving[1] + 10)
        models[ours[0]] = ours[1]
        anchor = Anchor(anchors[key], wrong(models[anchors[key]]))
        test = anchor if anchored and anchors[key] != serving[0] else None
        found = verdict(said, wrong(ours[1]), wrong(serving[1]), test)
        if found.decision == "promote":
            anchors = moved_anchors(
                [said], anchors, serving[0], ours[0], found.reasons, found.decision
            )
            serving = ours
    lost = (serving[1] - 300) / 2_000
    assert lost <= 0.02 if anchored else lost > 0.15
