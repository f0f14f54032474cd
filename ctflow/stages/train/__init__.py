"""Train: steps -> images -> package -> run."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from ctflow import __version__
from ctflow.components import RELEASED_IMAGE
from ctflow.errors import ConfigError, RunFailed, StateError
from ctflow.model import OWN, Commit, Images, Package, Run, Value
from ctflow.ports import Builder, Event, RunRequest, StepSource, Watch
from ctflow.release.serving import runtime_at
from ctflow.stages.train.packages import compile_package, unpack
from ctflow.tools import Tools

#: How many of a failed task's last log lines are shown with its error.
LAST_LINES = 15


def train(
    tools: Tools,
    watch: Watch,
    parameters: Mapping[str, Value],
    *,
    images: Images | None = None,
    package: Package | None = None,
    caching: bool = True,
    wait: bool = True,
    done: Callable[[Images | Package | Run], None] = lambda result: None,
) -> Run:
    """Build, compile and run what is checked out, from what is given already.

    Args:
        wait: to the run's end; else it is only started.
        done: told each stage's result as it is there: Images, Package, Run.

    Raises as ``build``, ``compile_pipeline`` and ``run`` do.
    """
    if package is None:
        if images is None:
            images = build(tools, watch)
            done(images)
        package = compile_pipeline(tools, images, watch)
        done(package)
    result = run(tools, package, watch, parameters, caching, wait)
    done(result)
    return result


def build(
    tools: Tools,
    watch: Watch,
    only: Sequence[str] = (),
    builder: Builder | None = None,
    *,
    predictor: bool = False,
) -> Images:
    """The images of all steps, or of those named in ``only``; what exists already is not built.

    Args:
        builder: instead of the project's.
        predictor: build the predictor's image too.

    Raises:
        ConfigError: ``only`` names a step that the project does not have.
        RunFailed, OutsideError: as the builder does.
    """
    own = tools.predictor() if predictor else None
    steps = chosen((*tools.steps(), own) if own else tools.steps(), only)
    built = (builder or tools.builder).build(steps, watch)
    theirs = tuple(one for one in built if own is None or one.step != own.name)
    found = next((one for one in built if own is not None and one.step == own.name), None)
    return Images(tools.project.project, theirs, head_or_none(tools), found)


def build_predictor(tools: Tools, commit: str, watch: Watch) -> str:
    """The image of a commit's predictor, as ``PredictorImages.image``; empty where none serves.

    Raises:
        ConfigError, StateError: as ``release.serving.runtime_at``.
    """
    if runtime_at(tools.scm, commit, tools.project) != OWN:
        return ""
    return tools.predictors.image(commit, watch)


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


def compile_pipeline(tools: Tools, images: Images, watch: Watch) -> Package:
    """Compile the pipeline with these images."""
    pipeline = tools.project.pipeline
    return compile_package(
        tools.root, pipeline, images, tools.compiler, tools.places["packages"], watch,
        tools.project.kubeflow.image or f"{RELEASED_IMAGE}:{__version__}",
    )  # fmt: skip


def run(
    tools: Tools,
    package: Package,
    watch: Watch,
    parameters: Mapping[str, Value],
    caching: bool = True,
    wait: bool = True,
) -> Run:
    """Run a package with the project's parameters, ``parameters`` over them, to its end.

    Args:
        wait: to the run's end; else it is only started, by a runner elsewhere.

    A failed step is a Run that says so, not an exception.

    Raises:
        ConfigError: the package, or a parameter, cannot be run.
    """
    request = RunRequest(
        tools.project.project,
        unpack(package, tools.places["packages"]),
        {**tools.project.parameters, **parameters},
        package.commit,
        caching,
    )
    if wait:
        return tools.runner.run(request, watch)
    return tools.runner.get(tools.runner.submit(request, watch))


def note_changed_steps(tools: Tools, earlier: Run, watch: Watch) -> None:
    """Say which steps are not any more as an earlier run, which goes on, has them."""
    if not earlier.images:
        return
    now = {image.step: image.digest for image in tools.workspaces.plan(tools.steps())}
    had = {image.step: image.digest for image in earlier.images}
    changed = [step for step, digest in had.items() if now.get(step) != digest]
    if changed:
        verb = "has" if len(changed) == 1 else "have"
        text = f"{', '.join(changed)} {verb} changed since"
        kept = (
            f"run {earlier.id} continues with the earlier version (to use the new one: --rebuild)"
        )
        watch(Event("note", "run", f"{text}; {kept}"))


def check_run(tools: Tools, done: Run) -> None:
    """Raise RunFailed, with the failed task's last log lines, unless the run succeeded."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    if failures := done.failures():
        last.extend(line for _, line in tools.runner.logs(done.id, failures[0].name))
    _check(done, tuple(last))


def _check(run: Run, log: tuple[str, ...] = ()) -> None:
    """Raise RunFailed unless the run succeeded; ``log`` are the failed task's last lines."""
    if run.state == "succeeded":
        return
    failures = run.failures()
    failed = failures[0] if failures else None
    what = f"task {failed.name} failed" if failed else f"run {run.id} {run.state}"
    if len(failures) > 1:
        what += f", and {len(failures) - 1} more"
    raise RunFailed(
        f"{what}: {(failed.error if failed else run.error) or 'no reason given'}",
        next=f"see `ctflow runs logs {run.id}{' ' + failed.name if failed else ''}`",
        details=log,
    )


def head_or_none(tools: Tools) -> Commit | None:
    """The checked-out commit; None outside a repository, where all but promoting still works."""
    try:
        return tools.head()
    except StateError:
        return None
