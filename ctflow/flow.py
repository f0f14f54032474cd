"""The stages in order, with a project's tools: what the verbs of the command line call."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ctflow.errors import StateError, UsageError
from ctflow.model import (
    Artifact,
    Commit,
    Images,
    Override,
    Package,
    Promotion,
    Run,
    Value,
    Verdict,
    from_json,
)
from ctflow.ports import Builder, Event, Watch
from ctflow.release import files as files
from ctflow.wiring import Tools

#: How many of a failed task's last log lines are shown with its error.
LAST_LINES = 15


def build(
    tools: Tools, watch: Watch, only: Sequence[str] = (), builder: Builder | None = None
) -> Images:
    """Build what changed, with the project's builder or the one that is given."""
    from ctflow.stages.build import build as stage

    chosen = builder or tools.builder
    return stage(tools.project.project, tools.steps(), chosen, head_or_none(tools), watch, only)


def touched(tools: Tools, rev: str, only: Sequence[str] = ()) -> list[str]:
    """The steps that changes since a commit touch."""
    from ctflow.wiring_images import touched as find

    return find(tools, rev, only)


def compile_pipeline(tools: Tools, images: Images, watch: Watch) -> Package:
    """Compile the pipeline with these images."""
    from ctflow.stages.compile import compile_package

    pipeline = tools.project.pipeline
    return compile_package(
        tools.root, pipeline, images, tools.compiler, tools.places["packages"], watch
    )


def run(
    tools: Tools,
    package: Package,
    watch: Watch,
    parameters: Mapping[str, Value],
    caching: bool = True,
) -> Run:
    """Run a package with the project's parameters, ``parameters`` over them."""
    from ctflow.stages.compile import unpack
    from ctflow.stages.run import run as stage

    return stage(
        tools.project.project,
        unpack(package, tools.places["packages"]),
        tools.runner,
        watch,
        parameters={**tools.project.parameters, **parameters},
        commit=package.commit,
        caching=caching,
    )


def tell_changed(tools: Tools, earlier: Run, watch: Watch) -> None:
    """Say which steps are not any more as an earlier run, which goes on, has them."""
    if not earlier.images:
        return
    now = {image.step: image.digest for image in tools.workspaces.plan(tools.steps())}
    had = {image.step: image.digest for image in earlier.images}
    changed = [step for step, digest in had.items() if now.get(step) != digest]
    if changed:
        verb = "has" if len(changed) == 1 else "have"
        text = f"{', '.join(changed)} {verb} changed since; {earlier.id} goes on with what it had"
        watch(Event("note", "run", f"{text} (the new: --rebuild)"))


def check_run(tools: Tools, done: Run) -> None:
    """Raise RunFailed, with the failed task's last log lines, unless the run succeeded."""
    from ctflow.stages.run import check

    last: deque[str] = deque(maxlen=LAST_LINES)
    if failures := done.failures():
        last.extend(line for _, line in tools.runner.logs(done.id, failures[0].name))
    check(done, tuple(last))


def gate(
    tools: Tools,
    done: Run,
    environment: str,
    watch: Watch,
    override: Override | None = None,
    dry_run: bool = False,
) -> Verdict:
    """The gate's verdict on a run for an environment; a dry run runs nothing for it."""
    from ctflow.stages.evaluate import evaluate

    check_environment(tools, environment)
    tools.scm.fetch()
    check_champion(tools, environment)
    return evaluate(
        here(done, tools),
        environment,
        tools.project,
        scm=tools.scm,
        store=tools.store,
        looks=tools.looks,
        runner=tools.runner,
        golden=tools.server.try_model,
        watch=watch,
        override=override,
        dry_run=dry_run,
    )


def promote(tools: Tools, done: Run, verdict: Verdict, dry_run: bool = False) -> Promotion:
    """Propose the run's model; where the environment merges by itself, merge it too."""
    from ctflow.evaluation.scoring import artifact_of, model_of
    from ctflow.stages.promote import promote as stage

    check_environment(tools, verdict.environment)
    from ctflow.config.policy import policy

    done = here(done, tools)
    promotion = stage(
        done,
        verdict,
        model_of(done, tools.project),
        tools.project,
        scm=tools.scm,
        store=tools.store,
        forge=tools.forge,
        predictions={where: artifact_of(done, where) for where in verdict.evaluated},
        dry_run=dry_run,
    )
    decided = policy(tools.project, tools.scm).project.environments
    automatic = decided[verdict.environment].merge == "auto" and verdict.override is None
    if automatic and promotion.state == "open" and not dry_run:
        return approve(tools, verdict.environment, promotion.id, "ctflow (merge: auto)")
    return promotion


def approve(tools: Tools, environment: str, id: str, by: str = "") -> Promotion:
    """Merge the promotion of that id into the default branch."""
    from ctflow.stages.review import approve as stage

    check_environment(tools, environment)
    return stage(tools.project, environment, id, scm=tools.scm, forge=tools.forge, by=by)


def finish(tools: Tools, environment: str) -> None:
    """Remove the branch of a promotion that is merged: a call that was killed may have left it."""
    from ctflow.stages.review import finish as stage

    stage(tools.project, environment, tools.scm)


def proposed_run(tools: Tools, run: str | None, environment: str) -> Run:
    """The run to propose: the one named, else what the environment before this one serves.

    For an environment that comes after none it is the latest.
    """
    before = tools.project.environments[environment].after
    if run is None and before is not None:
        tools.scm.fetch()
        tip = tools.scm.tip(tools.project.branch)
        there = files.at(tools.scm, tip, before) if tip else None
        if there is None:
            raise StateError(
                f"{environment} comes after {before}, which has no release",
                next=f"promote a run to {before} first",
            )
        run = there.run
    return tools.runner.get(run or "latest")


# -- what the stages are given --------------------------------------------------------------------


def head_or_none(tools: Tools) -> Commit | None:
    """The checked-out commit; None outside a repository, where all but promoting still works."""
    try:
        return tools.head()
    except StateError:
        return None


def check_committed(tools: Tools) -> Commit:
    """The checked-out commit; StateError unless all of the project is in it."""
    commit = tools.head()
    if commit.dirty:
        names = ", ".join(commit.dirty[:3]) + (" ..." if len(commit.dirty) > 3 else "")
        raise StateError(
            f"there are uncommitted changes ({names})",
            next="commit them, or try them with `ctflow run`, which promotes nothing",
        )
    return commit


def check_promotable(tools: Tools, environment: str | None) -> None:
    """Raise now what promoting would refuse at the end, after the training is paid for.

    Raises:
        UsageError: no such environment.
        ConfigError: a forge or a model store that this version does not have.
        StateError: git does not know who commits, or the default branch has no such environment.
        OutsideError: the remote cannot be reached.
    """
    from ctflow.config import policy

    if environment is not None:
        check_environment(tools, environment)
    _ = tools.forge
    tools.store.check()
    tools.scm.identity()
    tools.scm.fetch()
    decided = policy.policy(tools.project, tools.scm)
    for name in (environment,) if environment else decided.project.first_environments():
        policy.check_environment(decided, name)
        tools.scm.check_push(files.branch(tools.project.project, name))
        check_champion(tools, name)


def check_champion(tools: Tools, environment: str) -> None:
    """Raise StateError where a rule compares with a model that the store here does not hold."""
    from ctflow.gate.anchors import anchor_key
    from ctflow.lib.digests import short

    tip = tools.scm.tip(tools.project.branch)
    current = files.at(tools.scm, tip, environment) if tip else None
    if current is None or not any(rule.over for rule in tools.project.gate):
        return
    margins = {anchor_key(rule) for rule in tools.project.gate if rule.margin}
    anchors = (model for key, model in current.verdict.anchors.items() if key in margins)
    lacking = next(
        (model for model in (current.model.digest, *anchors) if not tools.store.has(model)), None
    )
    if lacking is None:
        return
    raise StateError(
        f"the model store here lacks {environment}'s model {short(lacking)}, which the gate"
        " compares with",
        cause="another clone promoted it",
        next="get it with `ctflow store pull STORE` (there: `ctflow store push STORE`), or name"
        " the team's store in store.models",
    )


def check_checkout(tools: Tools) -> Commit:
    """The checked-out commit, if a release can be made from it; after ``check_promotable``.

    Raises:
        StateError: there are uncommitted changes; the commit does not hold ctflow.yaml or the
            serving code; or it is on no branch of the remote, so that nobody else has it.
    """
    from ctflow.config.settings import FILE_NAME

    commit = check_committed(tools)
    if tools.scm.read(commit.sha, FILE_NAME) is None:
        raise StateError(
            f"commit {commit.sha[:10]} has no {FILE_NAME}",
            cause="git ignores it",
            next=f"commit it: `git add -f {FILE_NAME}`",
        )
    files.serving_at(tools.scm, commit.sha, tools.project, "")
    if not tools.scm.is_published(commit.sha):
        raise StateError(
            f"commit {commit.sha[:10]} is on no branch of the remote",
            next=f"`git push origin {commit.branch or 'HEAD:BRANCH'}`, so that others have what"
            " they review; or try it with `ctflow run`, which promotes nothing",
        )
    return commit


def first_environments(tools: Tools) -> tuple[str, ...]:
    """The environments that a new model may enter, as the default branch says."""
    from ctflow.config.policy import policy

    return policy(tools.project, tools.scm).project.first_environments()


def check_environment(tools: Tools, environment: str) -> None:
    """Raise UsageError unless the project has the environment."""
    known = tools.project.environments
    if environment not in known:
        raise UsageError(
            f"there is no environment {environment!r}", next=f"environments: {', '.join(known)}"
        )


def override_of(tools: Tools, forced: bool, reason: str | None) -> Override | None:
    """The override that a person asks for, under their own name.

    Raises:
        UsageError: an override without a reason, or a reason without an override.
    """
    if not forced:
        if reason is not None:
            raise UsageError("--reason goes with --override")
        return None
    if not reason or not reason.strip():
        raise UsageError("an override needs a reason", next="say why with --reason TEXT")
    return Override(files.reason_of(reason), tools.scm.identity())


def parameters_of(words: Sequence[str]) -> dict[str, Value]:
    """``name=value`` words, as text: what the value is says the type that the package declares.

    Raises:
        UsageError: a word without ``=``.
    """
    found: dict[str, Value] = {}
    for word in words:
        name, equals, raw = word.partition("=")
        if not equals or not name:
            raise UsageError(f"--param {word} is not name=value")
        found[name] = raw
    return found


def documents(files: Sequence[str], *wanted: str) -> dict[str, Any]:
    """The stages' results in JSON files, by kind.

    Args:
        wanted: the kinds that the verb can go on from; all of them by default.

    Raises:
        UsageError: a file that cannot be read, or holds no such document.
    """
    kinds: dict[str, type[Any]] = {
        cls.kind: cls for cls in (Images, Package, Run, Verdict, Promotion)
    }
    found: dict[str, Any] = {}
    for name in files:
        try:
            data = json.loads(Path(name).read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"cannot read {name}: {error.strerror}") from None
        except ValueError:
            raise UsageError(f"{name} is not JSON", next="give what --json printed") from None
        kind = data.get("kind") if isinstance(data, dict) else None
        if not isinstance(kind, str) or kind not in kinds:
            raise UsageError(
                f"{name} holds no stage's result", next="give what a stage's --json printed"
            )
        if wanted and kind not in wanted:
            raise UsageError(f"{name} holds a {kind}", next=f"give {' or '.join(wanted)}")
        found[kind] = from_json(kinds[kind], data, name)
    return found


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
