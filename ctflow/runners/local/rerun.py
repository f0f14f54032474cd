"""Running one task of a finished run again with another input artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ctflow.errors import StateError
from ctflow.lib.digests import digest_path, hexadecimal
from ctflow.model import Artifact, Run, Task
from ctflow.pipelinespec.spec import Component, Dag, Pipeline, Source, TaskSpec
from ctflow.ports import Watch
from ctflow.runners.local.engine import Engine
from ctflow.runners.local.graph import Graph
from ctflow.runners.local.jobs import RunContext
from ctflow.runners.local.plan_kinds import Plan
from ctflow.runners.local.record import Record


def score_again(
    record: Record,
    run_context: RunContext,
    plans: Mapping[str, Plan],
    pipeline: Pipeline,
    run: Run,
    name: str,
    artifact: str,
    content: Path,
    watch: Watch,
    *,
    caching: bool,
) -> Task:
    """The task ``name`` of ``run``, run again with ``content`` in the place of ``artifact``.

    Raises:
        StateError: there is no such task, it has not succeeded, or it does not read the artifact.
    """
    task = run.task(name)
    if task is None or task.group or task.state not in ("succeeded", "cached"):
        raise StateError(f"run {run.id} has no finished task {name!r} to run again")
    inputs = _replaced(run, task, artifact, content)
    spec = replace(
        task_spec(pipeline, name),
        key=name,
        parameters={key: Source("input", name=key) for key in task.inputs},
        artifacts={key: Source("input", name=key) for key in inputs},
        needs=(),
        condition="",
        iterator=None,
        always=False,
    )
    root = Component("root", {}, {}, {}, {}, dag=Dag({name: spec}, {}, {}))
    single = Pipeline(pipeline.name, root, pipeline.components)
    digest, _ = digest_path(content)
    folder = run_context.folder / hexadecimal(digest)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    run_context = replace(run_context, number=0, folder=folder)
    engine = Engine(record, run_context, plans, watch, caching=caching, slots=1)
    engine.run(
        lambda made: Graph(single, task.inputs, made.start, made.changed, run_context.names, inputs)
    )
    return engine.tasks[name]


def _replaced(
    run: Run, task: Task, artifact: str, content: Path
) -> dict[str, tuple[Artifact, ...]]:
    """The task's input artifacts, with ``content`` where ``artifact`` was."""
    original = run.artifact(artifact)
    reads = original is not None and any(
        one.uri == original.uri for some in task.input_artifacts.values() for one in some
    )
    if original is None or not reads:
        raise StateError(
            f"task {task.name} of run {run.id} reads no artifact {artifact}",
            next="name the task that scores the model in the gate's `predictions: task.output`",
        )
    digest, size = digest_path(content)
    other = replace(original, uri=str(content), digest=digest, size=size, metadata={})
    return {
        key: tuple(other if one.uri == original.uri else one for one in some)
        for key, some in task.input_artifacts.items()
    }


def task_spec(pipeline: Pipeline, name: str) -> TaskSpec:
    """The definition of a task, by its path in the pipeline (``for-loop-1.0.train``).

    Raises:
        StateError: the pipeline has no such task.
    """
    component, found = pipeline.root, None
    for word in name.split("."):
        if found is not None and found.iterator is not None and word.isdecimal():
            continue
        if component.dag is None or word not in component.dag.tasks:
            raise StateError(f"the pipeline has no task {name!r}")
        found = component.dag.tasks[word]
        component = pipeline.components[found.component]
    assert found is not None  # noqa: S101 (a name has one word at least)
    return found
