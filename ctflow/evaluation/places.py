"""Where the artifacts of a run are on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ctflow.model import Artifact, Run
from ctflow.tools import Tools


def here(done: Run, tools: Tools) -> Run:
    """The run with its artifacts' places on this machine.

    An artifact names the place where the run that made it kept it. Of another machine's run
    nothing is there; where its folder came along in this project's local state, the artifact is at
    the same path below ``runs/`` here, and is said to be there. All other artifacts stay as they
    are: those that are found where they say, kept elsewhere than below ``runs/``, or gone.
    """
    runs = tools.places["runs"]

    def moved(artifact: Artifact) -> Artifact:
        # A task from the cache names the folder of the run that made it.
        rest = artifact.uri.rpartition("/runs/r-")[2]
        place = runs / f"r-{rest}"
        inside = rest and place.resolve().is_relative_to(runs.resolve())
        if inside and not Path(artifact.uri).exists() and place.exists():
            return replace(artifact, uri=str(place))
        return artifact

    tasks = tuple(
        replace(
            task,
            artifacts={
                name: tuple(moved(one) for one in found) for name, found in task.artifacts.items()
            },
        )
        for task in done.tasks
    )
    return replace(done, tasks=tasks)
