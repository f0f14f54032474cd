"""What must be true before a model is judged or proposed: checked before it is trained."""

from __future__ import annotations

from ctflow.config.functions import check_functions
from ctflow.config.policy import check_environment as policy_has
from ctflow.config.policy import policy
from ctflow.config.settings import FILE_NAME
from ctflow.errors import StateError, UsageError
from ctflow.gate.anchors import anchor_key
from ctflow.lib.digests import short
from ctflow.model import OWN, Commit
from ctflow.release import files
from ctflow.release.predictor_image import check_image
from ctflow.release.serving import check_serving, runtime_at
from ctflow.tools import Tools


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
        ConfigError: a forge or a model store that this version does not have, or a function of a
            gate rule that is not there.
        StateError: git does not know who commits, or the default branch has no such environment.
        OutsideError: the remote cannot be reached.
    """
    if environment is not None:
        check_environment(tools, environment)
    _ = tools.forge
    check_functions(tools.project.gate, tools.steps(), tools.root)
    tools.store.check()
    tools.scm.identity()
    tools.scm.fetch()
    decided = policy(tools.project, tools.scm)
    for name in (environment,) if environment else decided.project.first_environments():
        policy_has(decided, name)
        tools.scm.check_push(files.branch(tools.project.project, name))
        check_champion(tools, name)


def check_champion(tools: Tools, environment: str) -> None:
    """Raise StateError where a rule compares with a model that the store here does not hold."""
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


def check_checkout(tools: Tools, environment: str | None = None) -> Commit:
    """The checked-out commit, if a release can be made from it; after ``check_promotable``.

    Args:
        environment: where the model is to be proposed; default: the first ones.

    Raises:
        StateError: there are uncommitted changes; the commit does not hold ctflow.yaml or the
            serving code; or it is on no branch of the remote, so that nobody else has it.
        ConfigError: there is neither a predictor nor a standard runtime for the model's format, or
            no image of the predictor where one is needed.
    """
    commit = check_committed(tools)
    if tools.scm.read(commit.sha, FILE_NAME) is None:
        raise StateError(
            f"commit {commit.sha[:10]} has no {FILE_NAME}",
            cause="git ignores it",
            next=f"commit it: `git add -f {FILE_NAME}`",
        )
    check_serving(tools.scm, commit.sha, tools.project)
    if runtime_at(tools.scm, commit.sha, tools.project) == OWN:
        for name in (environment,) if environment else first_environments(tools):
            check_image(tools.scm, commit.sha, tools.project, name)
    if not tools.scm.is_published(commit.sha):
        raise StateError(
            f"commit {commit.sha[:10]} is on no branch of the remote",
            next=f"`git push origin {commit.branch or 'HEAD:BRANCH'}`, so that others have what"
            " they review; or try it with `ctflow run`, which promotes nothing",
        )
    return commit


def first_environments(tools: Tools) -> tuple[str, ...]:
    """The environments that a new model may enter, as the default branch says."""
    return policy(tools.project, tools.scm).project.first_environments()


def check_environment(tools: Tools, environment: str) -> None:
    """Raise UsageError unless the project has the environment."""
    known = tools.project.environments
    if environment not in known:
        raise UsageError(
            f"there is no environment {environment!r}", next=f"environments: {', '.join(known)}"
        )
