"""Where models are kept, and what is remembered of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ctflow.model import Artifact, ModelRef, PredictionsKey


class ModelStore(Protocol):
    """Keeps models and their predictions under their content digest."""

    def check(self) -> None:
        """Raise OutsideError where a quick look tells that nothing can be kept there."""
        ...

    def put(self, artifact: Artifact, format: str, source: str = "") -> ModelRef:
        """Keep a model; the same content twice is kept once.

        Args:
            artifact: its ``uri`` is a place on this machine.
            source: where else the same content lies, perhaps: a store that holds it copies it.

        Whoever looks sees all of it or nothing. After a kill, or an error, the next call completes
        it. Raises StateError if it changed since its run, OutsideError.
        """
        ...

    def has(self, digest: str) -> bool:
        """Whether it holds the model; its content is not looked at."""
        ...

    def fetch(self, digest: str) -> Path:
        """A local path of the model's content, checked against its digest. Raises OutsideError."""
        ...

    def put_predictions(self, key: PredictionsKey, content: Path) -> tuple[str, str]:
        """Keep a model's predictions; what is kept last counts. (URI, digest of the file).

        So it keeps the summary of its training data, whose ``evaluation_set`` is the data's digest.
        """
        ...

    def fetch_predictions(self, key: PredictionsKey) -> tuple[Path, str] | None:
        """A local path of a model's predictions and their digest, checked against it; or None.

        Raises OutsideError when they are damaged.
        """
        ...

    def put_evidence(self, run: str, environment: str, content: bytes) -> str:
        """Keep what a promotion of a run's model needs, as one document; its URI.

        What is kept last counts. Raises OutsideError.
        """
        ...

    def fetch_evidence(self, run: str, environment: str) -> bytes | None:
        """The document of a run and an environment, or None. Raises OutsideError."""
        ...


class Looks(Protocol):
    """Remembers which models were judged here, whatever became of them."""

    def models(self, environment: str) -> Mapping[str, tuple[str, ...]]:
        """The digests of models, in the order they were first judged in, by evaluation set."""
        ...

    def add(self, environment: str, evaluation_set: str, model: str) -> None:
        """Remember a model; once. It is on the disk when this returns."""
        ...
