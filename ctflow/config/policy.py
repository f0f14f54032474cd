"""The default branch decides: its rules and its environments, wherever the gate is asked.

``--set``, a variable or a branch with other rules make a trial: a verdict to look at, that promotes
nothing unless a person overrides it, on record.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ctflow.config.functions import code_of
from ctflow.config.settings import FILE_NAME, project_of
from ctflow.errors import StateError
from ctflow.lib.digests import digest_bytes
from ctflow.lib.quick import dataclass
from ctflow.ports import Scm

if TYPE_CHECKING:
    from ctflow.config.project import Project

#: The parts of ctflow.yaml that decide what passes: the rules, which output is the model, and what
#: answers the golden requests.
JUDGING: dict[str, set[str] | None] = {
    "gate": None,
    "model": None,
    "serving": {"runtime", "requirements", "folder", "include", "predictor", "golden"},
}
#: The parts of an environment that decide who merges what.
MERGING = ("after", "merge", "approvals", "self")


@dataclass(frozen=True)
class Policy:
    """What decides.

    Attributes:
        project: the project as given, with the default branch's environments.
        rules: the digest of the default branch's rules.
        trial: in what the given rules are not the default branch's; empty: they are the same.
        code: the files of the functions that the default branch's rules name, as ``code_of``; None:
            it has no word yet.
        note: which of the given environments do not count as they were given; empty: all do.
    """

    project: Project
    rules: str
    trial: str = ""
    note: str = ""
    code: Mapping[str, str] | None = None


def rules_digest(project: Project, code: Mapping[str, str] | None = None) -> str:
    """The digest of all that decides whether a model passes.

    Args:
        code: the files of the functions that rules name, as ``code_of`` gives them.
    """
    judging = _judging(project) | ({"functions": dict(code)} if code else {})
    return digest_bytes(json.dumps(judging, sort_keys=True).encode())


def other_code(decided: Policy, code: Mapping[str, str] | None) -> str:
    """In what functions are not the default branch's, as a trial says it; empty: they are."""
    theirs = decided.code or {}
    other = [one.rpartition(":")[0] for one, digest in (code or {}).items()
             if theirs.get(one, digest) != digest]  # fmt: skip
    names = list(dict.fromkeys(other))
    if not names:
        return ""
    return f"{_listed(names)} here {_verb(names)} not as on {decided.project.branch}"


def _judging(project: Project) -> dict[str, Any]:
    said = project.model_dump(mode="json")
    return {
        part: said[part] if keys is None else {key: said[part][key] for key in keys}
        for part, keys in JUDGING.items()
    }


def policy(project: Project, scm: Scm) -> Policy:
    """The default branch's word on a project, as far as it was fetched.

    A default branch without a ctflow.yaml has no word yet: what is given decides.

    Raises:
        ConfigError: the default branch's ctflow.yaml is not valid.
    """
    tip = scm.tip(project.branch)
    text = scm.read(tip, FILE_NAME) if tip else None
    if text is None:
        return Policy(project, rules_digest(project))
    where = f"{FILE_NAME} of {project.branch}"
    decided = project_of(text.decode("utf-8", "replace"), where)
    code = code_of(decided.gate, scm, tip) if tip else {}
    rules = rules_digest(decided, code)
    mine, theirs = _judging(project), _judging(decided)
    differs = [part for part in JUDGING if mine[part] != theirs[part]]
    trial = f"{_listed(differs)} here {_verb(differs)} not as on {project.branch}"
    others = [
        name
        for name, given in project.environments.items()
        if name not in decided.environments
        or any(getattr(given, key) != getattr(decided.environments[name], key) for key in MERGING)
    ]
    note = f"the settings of {', '.join(others)} come from {where}, not from here"
    return Policy(
        project.model_copy(update={"environments": decided.environments}),
        rules,
        trial if differs else "",
        note if others else "",
        code,
    )


def check_environment(decided: Policy, environment: str) -> None:
    """Raise StateError unless the default branch has the environment."""
    known = decided.project.environments
    if environment not in known:
        raise StateError(
            f"{FILE_NAME} of {decided.project.branch} has no environment {environment!r}",
            next=f"merge it there first; environments: {', '.join(known)}",
        )


def _listed(parts: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(parts[:-1]), *parts[-1:])))


def _verb(parts: list[str]) -> str:
    return "is" if len(parts) == 1 else "are"
