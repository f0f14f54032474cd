"""The data that models were trained on: what the gate's rules ask of it, and what a release keeps.

The champion's data is known by the summary in the model store. Where there is none, as no rule
asked for it then, it is the challenger's own if that is the same data, or is read again from the
record of the champion's run if that is here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.config.data_rules import SCHEMA
from ctflow.errors import CtflowError, OutsideError, UsageError
from ctflow.evaluation.candidates import Candidate
from ctflow.gate.data import NEXT, Unknown, data_reason
from ctflow.gate.files.tables import DataTable, read_data
from ctflow.gate.summaries import DataSummary, read_summary, summary_of
from ctflow.lib.digests import digest_bytes, digest_path
from ctflow.model import (
    PredictionsKey,
    PredictionsRef,
    Reason,
    Release,
    Verdict,
    to_json,
    worst,
)
from ctflow.ports import Event, ModelStore, Outputs, Watch

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.config.project import Project


@dataclass(frozen=True)
class Asked:
    """What rules ask of one output: the values of some columns, and the kinds of all."""

    columns: frozenset[str]
    all_kinds: bool


def asked(rules: Sequence[GateRule], output: str) -> Asked:
    """What the rules ask of the training data at ``task.output``."""
    mine = [rule for rule in rules if rule.data == output]
    columns = frozenset(rule.column for rule in mine if rule.column is not None)
    return Asked(columns, any(rule.metric == SCHEMA for rule in mine))


def outputs_of(rules: Sequence[GateRule]) -> list[str]:
    """The ``task.output`` of all training data that rules name."""
    return list(dict.fromkeys(rule.data for rule in rules if rule.data is not None))


def read(place: Path, wanted: Asked) -> DataTable:
    """What the rules ask of it.

    Raises:
        UsageError: it is no file of training data.
    """
    return read_data(place, wanted.columns, wanted.all_kinds)


def summarised(output: str, digest: str, place: Path, wanted: Asked) -> DataSummary:
    """The summary of training data. Raises UsageError as ``read`` does."""
    return summary_of(output, digest, read(place, wanted), wanted.all_kinds)


def keep_summary(summary: DataSummary, model: str, store: ModelStore) -> PredictionsRef:
    """Keep a summary in the store, beside the model's predictions. The same one is kept once."""
    content = json.dumps(to_json(summary), sort_keys=True).encode()
    key = PredictionsKey(model, summary.output, summary.data, digest_bytes(content))
    with tempfile.TemporaryDirectory(prefix="ctflow-data-") as folder:
        place = Path(folder) / "summary.json"
        place.write_bytes(content)
        uri, digest = store.put_predictions(key, place)
    return PredictionsRef(uri, digest, summary.data, summary.output, key.made)


@dataclass(frozen=True)
class TrainingData:
    """A challenger's training data before the gate.

    Attributes:
        current: the champion's release; None: there is none yet.
        runner: has the champion's run on record, perhaps.
    """

    candidate: Candidate
    project: Project
    store: ModelStore
    current: Release | None
    runner: Outputs
    watch: Watch

    def judged(self, verdict: Verdict) -> Verdict:
        """The verdict with the rules on training data.

        Raises:
            StateError, RunFailed: the run has no such output, or it is gone.
            UsageError: it is no file of training data.
        """
        rules = [rule for rule in self.project.gate if rule.data is not None]
        if not rules or verdict.serves_already:
            return verdict
        reasons, notes = list(verdict.reasons), list(verdict.notes)
        for output in outputs_of(rules):
            wanted = asked(rules, output)
            ours = read(self.candidate.fetch(output), wanted)
            theirs = self._champion(output, self.candidate.content(output), ours, wanted)
            for rule in rules:
                if rule.data == output:
                    said = data_reason(rule, ours, theirs)
                    reasons += [said] if isinstance(said, Reason) else []
                    notes += [said] if isinstance(said, str) else []
        return replace(
            verdict,
            decision=worst(one.decision for one in reasons),
            reasons=tuple(reasons),
            notes=tuple(notes),
        )

    def _champion(
        self, output: str, mine: str, ours: DataTable, wanted: Asked
    ) -> DataSummary | Unknown | None:
        """What is known of the champion's data at the same output."""
        current = self.current
        if current is None:
            return None
        if mine and current.data.get(output) == mine:
            return summary_of(output, mine, ours, wanted.all_kinds)
        kept = self._kept(current, output)
        if isinstance(kept, DataSummary) and _has(kept, wanted):
            return kept
        return self._again(current, output, wanted) or kept

    def _kept(self, current: Release, output: str) -> DataSummary | Unknown:
        """What the store keeps, if it is what the release says that it is."""
        ref = next((one for one in current.summaries if one.output == output), None)
        if ref is None:
            why = f"the champion came without a summary of {output}, and its run is not here"
            return Unknown(f"{why}; {NEXT}")
        try:
            found = self.store.fetch_predictions(ref.key(current.model.digest))
            if found is None:
                why = "the champion's summary is not in the store here"
                return Unknown(f"{why}; copy it with `ctflow store pull FOLDER`")
            if found[1] != ref.digest:
                return Unknown(f"{found[0].name} is not what the release names; {NEXT}")
            return read_summary(found[0])
        except (OutsideError, UsageError) as error:
            self.watch(Event("note", "gate", f"not believed: {error.fact}"))
            return Unknown(f"the champion's summary is not sound; {NEXT}")

    def _again(self, current: Release, output: str, wanted: Asked) -> DataSummary | None:
        """From the data itself, if the champion's run is recorded here and it is as it was."""
        try:
            named = self.project.model.artifact
            run = self.runner.identified(self.runner.get(current.run), (named, output))
            model = run.artifact(named)
            artifact = run.artifact(output)
            if model is None or model.digest != current.model.digest or artifact is None:
                return None
            digest, place = current.data.get(output, artifact.digest), self.runner.fetch(artifact)
            if not digest or digest_path(place)[0] != digest:
                return None
            return summarised(output, artifact.digest, place, wanted)
        except (CtflowError, OSError):
            return None


def _has(summary: DataSummary, wanted: Asked) -> bool:
    """Whether a summary has what the rules ask now."""
    if wanted.all_kinds and not summary.whole:
        return False
    found = (summary.columns.get(name) for name in wanted.columns)
    return all(summary.whole if one is None else one.detailed for one in found)
