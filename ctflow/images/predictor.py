"""The images of a project's predictor, built from the serving folder as commits have it.

The commit decides, not the checkout: a run is promoted long after other work has begun.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ctflow.config.serving_code import code_files, export_code, folder_of
from ctflow.errors import ConfigError, CtflowError
from ctflow.lib.digests import digest_bytes
from ctflow.model import LOCAL_IMAGES
from ctflow.ports import PREDICTOR, Event, ImageSource, Scm, StepSource, Watch
from ctflow.steps.context import DOCKERFILE, context_files

if TYPE_CHECKING:
    from ctflow.config.project import Project


class CommitPredictors:
    """Implements ``PredictorImages``.

    Args:
        builder: gives what builds the images, whose annotations name the commit.
        local: nothing is built: an image only names its content, as those of steps do that run as
            processes.
    """

    def __init__(
        self,
        scm: Scm,
        project: Project,
        builder: Callable[[str], ImageSource],
        *,
        local: bool,
    ) -> None:
        self._scm = scm
        self._project = project
        self._builder = builder
        self._local = local
        #: By what goes in. It is asked for several times while a model is judged and proposed.
        self._known: dict[str, str] = {}

    def image(self, commit: str, watch: Watch, *, dry_run: bool = False) -> str:
        """As the port says."""
        files = code_files(self._scm, commit, self._project.serving)
        if DOCKERFILE not in files:
            return ""
        rows = (f"{path}\0{file.mode}\0{file.blob}" for path, (_, file) in sorted(files.items()))
        key = digest_bytes("\0\0".join((str(dry_run), *rows)).encode("utf-8", "surrogateescape"))
        if key not in self._known:
            # Outside of every repository: a clone has all that is exported here.
            with tempfile.TemporaryDirectory(prefix="ctflow-predictor-") as scratch:
                step = StepSource(PREDICTOR, Path(scratch) / "code")
                export_code(self._scm, commit, self._project.serving, step.folder)
                self._known[key] = self._image(step, commit, watch, dry_run)
        return self._known[key]

    def _image(self, step: StepSource, commit: str, watch: Watch, dry_run: bool) -> str:
        serving = self._project.serving
        try:
            inside = {one.path for one in context_files(step)}
            if serving.predictor not in inside:
                raise ConfigError(
                    f"{folder_of(serving)}/.dockerignore leaves {serving.predictor} out of the"
                    " image",
                    next=f"add the line `!{serving.predictor}` to it",
                )
            builder = self._builder(commit)
            if self._local:
                (planned,) = builder.plan([step])
                return f"{LOCAL_IMAGES}/{self._project.project}/{PREDICTOR}@{planned.digest}"
            (found,) = builder.plan([step]) if dry_run else builder.build([step], _named(watch))
        except CtflowError as error:
            # Where it was exported to is nothing that anybody knows, nor is it a step.
            shown = error.fact.replace(str(step.folder), folder_of(serving))
            error.fact = shown.replace(f"step {PREDICTOR}: ", "the predictor's image: ", 1)
            error.args = (error.message(),)
            raise
        return found.reference


def _named(watch: Watch) -> Watch:
    """The watch, told of the predictor and not of a step."""

    def told(event: Event) -> None:
        text = event.text.replace(f"step {PREDICTOR}", "the predictor's image")
        watch(replace(event, text=text) if event.kind == "note" else event)

    return told
