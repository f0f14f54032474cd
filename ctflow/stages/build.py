"""Build: the project's steps -> images, each pinned by the digest of its content."""

from __future__ import annotations

from collections.abc import Sequence

from ctflow.errors import ConfigError
from ctflow.model import Commit, Images
from ctflow.ports import Builder, StepSource, Watch


def build(
    project: str,
    steps: Sequence[StepSource],
    builder: Builder,
    commit: Commit | None,
    watch: Watch,
    only: Sequence[str] = (),
) -> Images:
    """The images of all steps, or of those named in ``only``; what exists already is not built.

    Raises:
        ConfigError: ``only`` names a step that the project does not have.
        RunFailed, OutsideError: as the builder does.
    """
    return Images(project, builder.build(chosen(steps, only), watch), commit)


def chosen(steps: Sequence[StepSource], only: Sequence[str]) -> list[StepSource]:
    """All steps, or those named in ``only``. Raises ConfigError, as ``build`` does.

    A project may have none: Python components need no image of the project's.
    """
    known = {step.name for step in steps}
    for name in only:
        if name not in known:
            have = ", ".join(sorted(known)) or "none; make steps/NAME with a Dockerfile"
            raise ConfigError(f"the project has no step {name!r}", next=f"steps: {have}")
    return [step for step in steps if not only or step.name in only]
