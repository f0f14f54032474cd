"""Per-example predictions of the challenger, and of other models on the challenger's examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.errors import OutsideError, StateError
from ctflow.gate.files import evidence
from ctflow.lib.quick import dataclass
from ctflow.model import PredictionsKey, Release
from ctflow.ports import Event, Functions, ModelStore, Watch

if TYPE_CHECKING:
    from ctflow.evaluation.candidates import Candidate


@dataclass(frozen=True)
class Scorer:
    """Brings predictions that the gate compares.

    Attributes:
        candidate: the challenger.
        dry_run: no model is scored again.
        functions: the functions of the project that rules ask about predictions; None: there are
            none to ask.
    """

    candidate: Candidate
    store: ModelStore
    watch: Watch
    dry_run: bool = False
    functions: Functions | None = None

    def of_challenger(self, output: str) -> evidence.Predictions:
        """The challenger's own, of ``task.output``.

        Raises:
            StateError, RunFailed: the run has no such output.
            UsageError: it is no predictions file.
        """
        return self._read(self.candidate.fetch(output), output)

    def of_other(
        self,
        model: str,
        output: str,
        evaluation_set: str,
        current: Release | None,
        name: str = "the champion",
    ) -> evidence.Predictions:
        """Another model's, on the same examples, made by the same code with the same other inputs.

        Those that the store keeps, else its model is scored again.

        Args:
            model: the other model's digest.
            current: the release of that model that says what was kept; None: none does.
            name: what people call it.

        Raises:
            CtflowError: they cannot be had.
        """
        key = PredictionsKey(model, output, evaluation_set, self.candidate.made(output))
        place = self._kept(key, current)
        if place is None:
            place = self._scored_again(key, name)
        return self._read(place, output)

    def _read(self, place: Path, output: str) -> evidence.Predictions:
        calls = self.functions.of(output) if self.functions is not None else None
        return evidence.read_predictions(place, calls)

    def _kept(self, key: PredictionsKey, current: Release | None) -> Path | None:
        """What the store keeps, if it is what the release says that it is."""
        try:
            kept = self.store.fetch_predictions(key)
        except OutsideError as error:
            self.watch(Event("note", "gate", f"stored predictions are not used: {error.fact}"))
            return None
        if kept is None:
            return None
        place, digest = kept
        refs = current.predictions if current else ()
        said = {ref.key(key.model): ref.digest for ref in refs}.get(key, digest)
        if said != digest:
            self.watch(
                Event(
                    "note", "gate", f"{place} is not used: its digest is not the one in the release"
                )
            )
            return None
        return place

    def _scored_again(self, key: PredictionsKey, name: str) -> Path:
        if self.dry_run:
            raise StateError("it would be scored again; this is a dry run")
        text = (
            f"{name} was not scored on this evaluation (its examples, its code or its other inputs)"
        )
        self.watch(Event("note", "gate", f"{text}: scoring it now"))
        place = self.candidate.score(key.output, self.store.fetch(key.model), self.watch)
        self.store.put_predictions(key, place)
        return place
