"""Where the outputs of a cluster's runs are on record: ML Metadata, or the bucket itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ctflow.model.doctor import Finding, Skipped
from ctflow.ports import RunArtifacts
from ctflow.ports.artifacts import RunPlace

#: A run that nobody has.
_NONE = "00000000-0000-0000-0000-000000000000"


class RunOutputs:
    """What says which artifacts and metrics a run has.

    Args:
        address: of ML Metadata; None: ctflow.yaml names none.
        opened: makes its client; nothing is sent before.
        listed: whether the bucket can be listed instead.
    """

    system = "ml metadata"

    def __init__(
        self,
        address: str | None,
        opened: Callable[[str], RunArtifacts],
        *,
        listed: bool,
        needed: bool,
    ) -> None:
        self._address, self._opened, self._listed = address, opened, listed
        self.needed = needed

    def look(self) -> Sequence[Finding] | Skipped:
        """ML Metadata is asked for a run that it does not have."""
        if self._address is not None:
            self._opened(self._address).of_run(RunPlace(_NONE))
            return [Finding(self.system, "ok", f"{self._address} answers")]
        if not self.needed:
            return Skipped("kubeflow.metadata is not set")
        if self._listed:
            text = "kubeflow.metadata is not set: outputs of runs are found by listing the bucket"
            return [Finding(self.system, "ok", text)]
        text = "metrics and models of runs cannot be read here, only by a gate in the pipeline"
        mend = "set kubeflow.metadata, or kubeflow.artifacts.endpoint"
        return [Finding(self.system, "warning", text, next=mend)]
