"""The challenger as it would be served: what it weighs, whether it answers rightly, and how fast.

The model server is started once at most, and only for a model that nothing else stops.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.config.serving_code import export_code
from ctflow.config.serving_costs import BYTES, COSTS, TIMES
from ctflow.errors import RunFailed
from ctflow.evaluation.candidates import Candidate
from ctflow.gate.costs import quantile, size_reason, time_reason, wants_more
from ctflow.model import OWN, Reason, ServingRef, Verdict, worst
from ctflow.ports import GoldenCheck, GoldenRequest, Scm, Timed, Trial, Watch
from ctflow.release import files as release

if TYPE_CHECKING:
    from ctflow.config.gate_rules import GateRule
    from ctflow.config.project import Project

#: A run's own figure may be this far from the measured one, as a share, before it is said.
_NEAR = 1e-6


@dataclass
class Served:
    """A challenger and its serving code.

    Attributes:
        serving: the serving code of the run's commit; None: no commit holds it.
        champion_size: the champion's in bytes; 0: not known.
        golden: starts the model and asks it; None: nothing is to be started.
        stopped: whether something else than the rules stops the model already.
        dry_run: what is not measured holds nothing up, for nothing is proposed.
    """

    candidate: Candidate
    project: Project
    environment: str
    serving: ServingRef | None
    champion_size: int
    scm: Scm
    golden: GoldenCheck | None
    watch: Watch
    stopped: bool
    dry_run: bool = False
    _tried: bool = field(default=False, init=False)

    def costs(self, verdict: Verdict) -> Verdict:
        """The verdict with the rules on costs: what it takes before a reserved set is opened.

        Raises:
            ConfigError, OutsideError: as ``tried``.
        """
        verdict = self.sized(verdict)
        goes_on = self._timing() and verdict.passes and not self.stopped
        return self.tried(verdict) if goes_on else verdict

    def sized(self, verdict: Verdict) -> Verdict:
        """The verdict with the rules on the model's size."""
        rules = [rule for rule in self.project.gate if rule.metric == BYTES]
        if not rules or verdict.serves_already:
            return verdict
        size = size_of(self.candidate.fetch_model())
        reasons = tuple(size_reason(rule, size) for rule in rules)
        verdict = self._with(verdict, reasons, {BYTES: float(size)})
        if self.champion_size:
            theirs = verdict.champion_metrics | {BYTES: float(self.champion_size)}
            verdict = replace(verdict, champion_metrics=theirs)
        return verdict

    def tried(self, verdict: Verdict) -> Verdict:
        """The verdict with the golden requests' answers and times, if nothing else stops the model.

        Raises:
            ConfigError: the golden requests are wrong.
            OutsideError: the environment of the model server cannot be made.
        """
        if self._tried:
            return verdict
        rules = self._timing()
        if not verdict.passes:
            note = f"{_named(rules)} not measured: the model does not pass the other rules"
            untold = not rules or verdict.serves_already
            return verdict if untold else replace(verdict, notes=(*verdict.notes, note))
        self._tried = True
        if self.golden is None or self.serving is None or self.candidate.run.commit is None:
            return self._untried(verdict, rules)
        try:
            trial = self._trial(self.golden, self.serving, self.candidate.run.commit.sha, rules)
        except RunFailed as error:
            return self._with(verdict, (Reason("golden", "reject", error.fact),), {})
        failed = [check for check in trial.checks if not check.passed]
        text = f"golden requests {len(trial.checks) - len(failed)}/{len(trial.checks)}"
        if not self.serving.golden:
            text = "the model loads" + ("" if failed else " and is ready")
        if failed:
            text += f": {failed[0].name}: {failed[0].detail}"
        answered = Reason("golden", "reject" if failed else "promote", text)
        verdict = self._with(verdict, (answered,), {})
        if not rules or failed:
            return verdict
        return self._timed(verdict, rules, trial.timed or Timed())

    def _timing(self) -> list[GateRule]:
        return [rule for rule in self.project.gate if rule.metric in TIMES]

    def _untried(self, verdict: Verdict, rules: list[GateRule]) -> Verdict:
        """Nothing is proposed from a dry run; else what is not measured is not let through."""
        why = "the run's code is in no commit"
        if self.golden is None:
            why = "this is a dry run" if self.dry_run else "no model is started here"
        notes = verdict.notes
        if self.candidate.run.commit is not None:
            notes = (*notes, f"the golden requests were not tried: {why}")
        if rules and self.dry_run:
            notes = (*notes, f"{_named(rules)} not measured: {why}")
        verdict = replace(verdict, notes=notes)
        if self.dry_run:
            return verdict
        held = tuple(
            Reason(rule.metric, "hold", f"{rule.metric} was not measured: {why}") for rule in rules
        )
        return self._with(verdict, held, {})

    def _trial(
        self, golden: GoldenCheck, serving: ServingRef, commit: str, rules: list[GateRule]
    ) -> Trial:
        project, scm = self.project, self.scm
        with tempfile.TemporaryDirectory(prefix="ctflow-golden-") as folder:
            code = Path(folder) / "code"
            if serving.runtime == OWN or serving.golden:
                export_code(scm, commit, project.serving, code)
            else:
                code.mkdir()
            tip = scm.tip(project.branch)
            name = release.public_name(scm, tip, self.environment, project.project)
            more = wants_more(rules) if rules else None
            request = GoldenRequest(
                name, self.candidate.fetch_model(), code, serving.predictor, serving.golden, more,
                serving.runtime, serving.requirements, serving.image,
            )  # fmt: skip
            return golden(request, self.watch)

    def _timed(self, verdict: Verdict, rules: list[GateRule], timed: Timed) -> Verdict:
        if timed.fault or not timed.times:
            text = f"the model stopped answering: {timed.fault or 'no times'}"
            return self._with(verdict, (Reason("golden", "reject", text),), {})
        reasons = tuple(time_reason(rule, timed.times, timed.seconds) for rule in rules)
        ordered = sorted(timed.times)
        figures = {rule.metric: quantile(ordered, TIMES[rule.metric]) for rule in rules}
        return self._with(verdict, reasons, figures)

    def _with(
        self, verdict: Verdict, reasons: tuple[Reason, ...], figures: Mapping[str, float]
    ) -> Verdict:
        """The verdict with more reasons; a measured figure takes the place of a reported one."""
        ruled = {rule.metric for rule in self.project.gate if rule.metric in COSTS}
        before = verdict.metrics
        old = {name for name in ruled if not any(one.rule == name for one in verdict.reasons)}
        notes = verdict.notes
        for name, value in figures.items():
            said = self.candidate.run.metrics.get(name)
            if said is not None and abs(said - value) > _NEAR * max(abs(value), 1.0):
                notes = (*notes, f"the run reports {name} {said:g}; the measured value is used")
        return replace(
            verdict,
            decision=worst(one.decision for one in (*verdict.reasons, *reasons)),
            reasons=(*verdict.reasons, *reasons),
            notes=notes,
            metrics={k: v for k, v in before.items() if k not in old} | dict(figures),
            champion_metrics={k: v for k, v in verdict.champion_metrics.items() if k not in old},
        )


def size_of(model: Path) -> int:
    """The bytes of a file, or of all files in a folder."""
    files = (model,) if model.is_file() else (p for p in model.rglob("*") if p.is_file())
    return sum(file.stat().st_size for file in files)


def _named(rules: list[GateRule]) -> str:
    names = list(dict.fromkeys(rule.metric for rule in rules))
    return f"{', '.join(names)} {'was' if len(names) == 1 else 'were'}"
