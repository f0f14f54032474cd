"""The report of a promotion: what changes, why, and on what evidence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from ctflow.config.serving_costs import COSTS
from ctflow.lib.digests import short
from ctflow.lib.quick import dataclass
from ctflow.model import OWN, Comparison, Release, Verdict, deciding_first
from ctflow.report.blocks import Block, Bullets, Code, Heading, Paragraph, Table

if TYPE_CHECKING:
    from ctflow.config.project import RolloutConfig

_MARKS = {"promote": "✓", "hold": "–", "reject": "✗"}
_MAX_ROWS = 60


@dataclass(frozen=True)
class Confusion:
    """``counts[i][j]`` examples of label ``labels[i]`` were predicted as ``labels[j]``."""

    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Evidence:
    """All that a promotion's report says: the proposed release, the present one, the plan."""

    release: Release
    current: Release | None
    rollout: RolloutConfig
    challenger: Confusion | None = None
    champion: Confusion | None = None
    manifest_before: str = ""
    manifest_after: str = ""
    note: str = ""


def promotion_report(evidence: Evidence) -> list[Block]:
    """The whole report."""
    release, current = evidence.release, evidence.current
    now = f"model {short(current.model.digest)} of run {current.run}" if current else "nothing yet"
    blocks: list[Block] = [
        Heading(1, f"{release.environment}: serve {release.project} {short(release.model.digest)}"),
        Paragraph(
            f"Run {release.run} of commit {release.commit[:12]} proposes this model for"
            f" {release.environment}, which serves {now}."
        ),
    ]
    blocks += _changes(release, current)
    blocks += verdict_blocks(release.verdict)
    blocks += _metrics(release, current)
    blocks += _confusion("Confusion matrix of this model", evidence.challenger)
    blocks += _confusion("Confusion matrix of the champion", evidence.champion)
    blocks += _diff(evidence)
    if evidence.note:
        blocks.append(Paragraph(evidence.note, tone="alarm"))
    blocks += lineage(release)
    blocks += _plan(release, evidence.rollout, current)
    return blocks


def _changes(release: Release, current: Release | None) -> list[Block]:
    """What is served from then on, beside what is served now: only what differs."""
    if current is None:
        return []
    now, then = _served(current), _served(release)
    names = list(dict.fromkeys([*then, *now]))
    rows = [(k, now.get(k, "-"), then.get(k, "-")) for k in names if now.get(k) != then.get(k)]
    return [Heading(2, "Changes"), Table(("what", "now", "then"), tuple(rows))] if rows else []


def _served(release: Release) -> dict[str, str]:
    """All that decides how a release answers, in words."""
    found = {"model": short(release.model.digest), "format": release.model.format}
    serving = release.serving
    if serving is None:
        return found
    if serving.runtime != OWN:
        found["served by"] = f"standard runtime {serving.runtime}"
        found["requirements"] = ", ".join(serving.requirements)
        return found
    found |= {"served by": "the project's predictor", "predictor's code": short(serving.digest)}
    return found | ({"predictor's image": serving.image} if serving.image else {})


def verdict_blocks(verdict: Verdict) -> list[Block]:
    """The verdict and its reasons; an override in red."""
    reasons = deciding_first(verdict)[:_MAX_ROWS]
    blocks: list[Block] = [
        Heading(2, f"Verdict: {verdict.decision}"),
        Bullets(tuple(f"{_MARKS[one.decision]} {one.text}" for one in reasons)),
    ]
    if verdict.override:
        blocks.insert(
            1,
            Paragraph(
                f"OVERRIDDEN by {verdict.override.by}: {verdict.override.reason}", tone="alarm"
            ),
        )
    against = f" against champion {short(verdict.champion)}" if verdict.champion else ""
    judged = (f"judged on {verdict.examples:,} examples{against}",) if verdict.examples else ()
    notes = (*verdict.notes[:_MAX_ROWS], *judged)
    return [*blocks, Bullets(notes)] if notes else blocks


def _metrics(release: Release, current: Release | None) -> list[Block]:
    verdict = release.verdict
    before: Mapping[str, float] = verdict.champion_metrics or (current.metrics if current else {})
    compared = {
        one.comparison.metric: one.comparison
        # Of a metric, the first: what comes after compares with an anchor, or on a reserved set.
        for one in reversed(verdict.reasons)
        if one.comparison and not one.slice
    }
    # Bare names only: the same figures also stand under their task's name.
    names = [name for name in release.metrics if "." not in name] or list(release.metrics)
    figures = dict(release.metrics)
    # What the gate measured itself counts, whatever the run says.
    for cost in dict.fromkeys(one.rule for one in verdict.reasons if one.rule in COSTS):
        if cost in verdict.metrics:
            figures[cost] = verdict.metrics[cost]
            names = [*names, cost] if cost not in names else names
    # What the gate judged comes first.
    judged_names = {one.rule.partition(" ")[0] for one in verdict.reasons}
    names.sort(key=lambda name: name not in judged_names)
    rows = []
    for name in names[:_MAX_ROWS]:
        mine, theirs = figures[name], before.get(name)
        rows.append(
            (
                name,
                _number(mine),
                _number(theirs) if theirs is not None else "-",
                _number(mine - theirs, "+") if theirs is not None else "-",
                _interval(compared.get(name)),
            )
        )
    if not rows:
        return []
    header = ("metric", "this model", "champion", "difference", "on the same examples")
    return [Heading(2, "Metrics"), Table(header, tuple(rows), frozenset({1, 2, 3}))]


def _number(value: float, sign: str = "") -> str:
    # Counts, such as bytes, to the last digit.
    is_count = float(value).is_integer() and abs(value) < 1e15
    return f"{value:{sign},.0f}" if is_count else f"{value:{sign}.4g}"


def _interval(comparison: Comparison | None) -> str:
    if comparison is None:
        return "-"
    level = f"{100 * comparison.confidence:g}%"
    moved, low, high = comparison.gain, comparison.low, comparison.high
    word = "better" if moved > 0 else "worse" if moved < 0 else "the same"
    if (comparison.challenger - comparison.champion) * moved < 0:
        # A metric that improves as it falls: with the sign of the difference beside it.
        moved, low, high = -moved, -high, -low
    return f"{moved:+.4f} ({level} CI {low:.4f} to {high:.4f}), {word}"


def _confusion(title: str, confusion: Confusion | None) -> list[Block]:
    if confusion is None or not confusion.labels:
        return []
    header = ("label \\ predicted", *confusion.labels)
    rows = tuple(
        (label, *(str(count) if count else "·" for count in counts))
        for label, counts in zip(confusion.labels, confusion.counts, strict=True)
    )
    return [Heading(2, title), Table(header, rows, frozenset(range(1, len(header))))]


def _diff(evidence: Evidence) -> list[Block]:
    lines = difflib.unified_diff(
        evidence.manifest_before.splitlines(),
        evidence.manifest_after.splitlines(),
        "inferenceservice.yaml (now)",
        "inferenceservice.yaml (proposed)",
        lineterm="",
        n=2,
    )
    text = "\n".join(lines)
    return [Heading(2, "Manifest"), Code(text, "diff")] if text else []


def lineage(release: Release) -> list[Block]:
    """What the model was made from, by digests."""
    when = datetime.fromtimestamp(release.created, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    rows = [
        ("model", f"{release.model.digest} ({release.model.format}, {release.model.size:,} bytes)"),
        ("model URI", release.model.uri),
        ("run", f"{release.run}, {when}"),
        ("pipeline version", f"{release.pipeline} {release.pipeline_version}"),
        ("package", release.package),
        ("commit", release.commit),
        *((f"parameter {name}", repr(value)) for name, value in release.parameters.items()),
        *((f"data {name}", digest) for name, digest in release.data.items()),
        *((f"image {step}", reference) for step, reference in release.images.items()),
        *_runtime(release),
        ("evaluation set", release.verdict.evaluation_set or "-"),
    ]
    return [Heading(2, "Lineage"), Table(("what", "which"), tuple(rows[:_MAX_ROWS]))]


def _runtime(release: Release) -> list[tuple[str, str]]:
    """What serves the model: the standard runtime, or the predictor's image where it has one."""
    serving = release.serving
    if serving is None:
        return []
    if serving.runtime == OWN:
        return [("predictor's image", serving.image)] if serving.image else []
    return [("served by", f"standard runtime {serving.runtime}: {', '.join(serving.requirements)}")]


def _plan(release: Release, rollout: RolloutConfig, current: Release | None) -> list[Block]:
    if rollout.canary:
        steps = ", ".join(f"{percent}%" for percent in rollout.canary)
        plan = f"Traffic moves in steps of {steps}, each held for {rollout.pause} and checked."
    else:
        plan = "The new model is checked with the golden requests, then takes all traffic at once."
    back = (
        f"ctflow rollback {release.environment} --reason '...'"
        if current
        else "none: this is the environment's first release"
    )
    return [
        Heading(2, "Rollout and rollback"),
        Paragraph(plan),
        Paragraph("To restore the model that serves now, and put this one on hold:"),
        Code(back),
    ]
