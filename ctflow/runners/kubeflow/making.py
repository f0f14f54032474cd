"""What the result of a cluster's task was made of, from its package and what it read.

The parts are: ``image`` (the digest of the step's image, or its name where it is not pinned),
``command`` (command, arguments and variables, their placeholders as the package has them),
``platform`` (volumes, secrets and the like, where the package has some), ``parameter NAME`` and
``artifact NAME`` (type, content's digest and metadata) for each input. Where the record of the run
does not tell what a task read, or an input's content is not to be had, ``run`` stands for it: then
what it made is comparable to nothing else.
"""

from __future__ import annotations

import json
from typing import Any

from ctflow.lib.digests import digest_bytes
from ctflow.model import Run, Task
from ctflow.pipelinespec.spec import Pipeline
from ctflow.runners.kubeflow.nodes import Spot, spots


def making_of(run: Run, task: Task, pipeline: Pipeline | None) -> dict[str, str]:
    """The digests of the parts that a task's results were made of.

    Args:
        task: with the digests of its input artifacts.
        pipeline: the package; None: not known.
    """
    spot = spot_of(pipeline, task.name)
    if spot is None or spot.component.container is None:
        return {"run": run.id}
    container = spot.component.container
    parts = {
        "image": container.image.partition("@")[2] or container.image,
        "command": _digest([container.command, container.args, dict(container.env)]),
    }
    if spot.component.platform:
        parts["platform"] = _digest(spot.component.platform)
    parts |= {f"parameter {name}": _digest(value) for name, value in task.inputs.items()}
    whole = _is_whole(spot, task)
    for name, some in task.input_artifacts.items():
        whole = whole and all(one.digest for one in some)
        parts[f"artifact {name}"] = _digest(
            [[one.type, one.digest, dict(one.metadata)] for one in some]
        )
    return parts if whole else parts | {"run": run.id}


def _is_whole(spot: Spot, task: Task) -> bool:
    """Whether the record has all inputs that the package gives to a task."""
    return set(spot.spec.parameters) <= set(task.inputs) and (
        set(spot.spec.artifacts) <= set(task.input_artifacts)
    )


def spot_of(pipeline: Pipeline | None, name: str) -> Spot | None:
    """The task of that path in the package, or None."""
    if pipeline is None:
        return None
    return next((spot for spot in spots(pipeline) if spot.path == name), None)


def _digest(value: Any) -> str:
    return digest_bytes(json.dumps(value, sort_keys=True, default=list).encode())
