"""A new project: the questions, the rules for their answers, and how it comes to be in one step.

The rules are those of the template's own hook (``hooks/pre_gen_project.py``), which refuses the
same answers when the template is rendered by cookiecutter alone.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ctflow.config.values import KSERVE_NAME_MAX, check_name
from ctflow.errors import StateError, UsageError
from ctflow.lib.quick import dataclass


@dataclass(frozen=True)
class Question:
    """One answer that the template needs. ``rule`` must match the whole of it."""

    key: str
    text: str
    rule: str
    hint: str


QUESTIONS = (
    Question("project", "Project name", r".+", ""),
    Question(
        "description",
        "What it does, in one line",
        r"[^\x00-\x1f\x7f]{1,200}",
        "write one line of at most 200 characters",
    ),
    Question(
        "repository",
        "GitHub repository, owner/name (empty: none yet)",
        r"([A-Za-z0-9]([-A-Za-z0-9]{0,38})/(?!\.+$)[A-Za-z0-9._-]{1,100})?",
        "write owner/name, or nothing",
    ),
    Question(
        "registry",
        "Image registry and path (empty: none yet)",
        r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+(([._-]|__)[a-z0-9]+)*)*)?",
        "write host/path in lower case, such as ghcr.io/acme/digits, or nothing",
    ),
    Question(
        "branch",
        "Default branch",
        r"(?!ctflow/)(?!.*(//|/\.|\.\.|\.lock(/|$)))(?!HEAD$)[A-Za-z0-9_][A-Za-z0-9._/-]*(?<![./])",
        "write a branch name of letters, digits and ._/-, such as master",
    ),
    Question(
        "runner",
        "Where pipelines run: local, or kubeflow",
        r"local|kubeflow",
        "write local or kubeflow",
    ),
)
_KEYS = tuple(question.key for question in QUESTIONS)


class Scaffold(Protocol):
    """Writes a project's files and commits them."""

    def defaults(self) -> Mapping[str, str]:
        """The template's own default answers; some may be no valid ones."""
        ...

    def require_identity(self) -> None:
        """Raise StateError unless git knows who commits, OutsideError where there is no git."""
        ...

    def render(self, answers: Mapping[str, str], folder: Path) -> Path:
        """Write the project's files below ``folder``; the project's folder in it."""
        ...

    def first_commit(self, folder: Path, branch: str, message: str) -> str:
        """Make ``folder`` a repository with one commit on ``branch``; the commit's id."""
        ...


@dataclass(frozen=True)
class NewProject:
    """What ``create`` leaves."""

    folder: Path
    commit: str


_NONE: Mapping[str, str] = {}


def default(key: str, answers: Mapping[str, str], own: Mapping[str, str] = _NONE) -> str:
    """The answer where none is given; it may follow from earlier ones.

    Args:
        own: the template's defaults, which say what it is about; one that is not valid is none.
    """
    if own.get(key):
        try:
            check(key, own[key])
            return own[key]
        except UsageError:
            pass  # such as a template's text, which follows from others
    if key == "registry":
        repository = answers.get("repository", "")
        return f"ghcr.io/{repository.lower()}" if repository else ""
    return {
        "project": "digits",
        "description": "Recognise handwritten digits",
        "repository": "",
        "branch": "master",
        "runner": "local",
    }[key]


def suggest(name: str) -> str:
    """A valid project name that looks like ``name``; empty where nothing of it can be kept."""
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")
    return words[:KSERVE_NAME_MAX].rstrip("-")


def check(key: str, answer: str) -> None:
    """Raise UsageError, one line with what to write instead, where an answer is not valid."""
    question = next(one for one in QUESTIONS if one.key == key)
    if key == "project":
        try:
            check_name(answer)
        except ValueError as error:
            near = suggest(answer)
            raise UsageError(str(error), next=f"write project={near}" if near else "") from None
    elif not re.fullmatch(question.rule, answer):
        raise UsageError(f"{key} {answer!r} is not valid", next=question.hint)
    elif re.search(r"\{[{%#]", answer):
        raise UsageError(
            f"{key} {answer!r} is not valid",
            cause="the template would read the braces as its own",
            next="leave out '{{', '{%' and '{#'",
        )


def parse(words: list[str]) -> dict[str, str]:
    """``key=value`` words to answers; raises UsageError on an unknown key, or one given twice."""
    answers: dict[str, str] = {}
    for word in words:
        key, _, value = word.partition("=")
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1, cutoff=0.5)
            mend = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(_KEYS)}"
            raise UsageError(f"unknown key {key!r}", next=mend)
        if key in answers and answers[key] != value:
            raise UsageError(f"{key} is given twice, as {answers[key]!r} and {value!r}")
        answers[key] = value.strip()
    return answers


def complete(given: Mapping[str, str], own: Mapping[str, str] = _NONE) -> dict[str, str]:
    """All answers in the questions' order, defaults filled in; raises UsageError on a bad one."""
    answers: dict[str, str] = {}
    for key in _KEYS:
        answers[key] = given[key] if key in given else default(key, answers, own)
        check(key, answers[key])
    if answers["runner"] == "kubeflow" and not answers["registry"]:
        raise UsageError(
            "runner kubeflow needs an image registry, which the cluster pulls the steps from",
            next="give registry=host/path, such as ghcr.io/acme/digits",
        )
    return answers


def require_free(target: Path) -> None:
    """Raise StateError where there is something at ``target``, or no folder to put it in."""
    if os.path.lexists(target):
        raise StateError(
            f"{target} already exists, and ctflow overwrites nothing",
            next="give another folder, or move that one away",
        )
    if not target.parent.is_dir():
        raise StateError(f"there is no folder {target.parent}", next="make it first")


def create(target: Path, answers: Mapping[str, str], scaffold: Scaffold) -> NewProject:
    """Write, commit and then put in place a new project.

    It is made in a hidden folder beside ``target`` and renamed when it is whole, so that whatever
    stops this leaves no half of a project. What a killed call left there is removed.

    Raises:
        StateError: ``target`` is there, or git does not know who commits: nothing is written.
        OutsideError: git, or the disk, failed.
    """
    require_free(target)
    scaffold.require_identity()
    prefix = f".{target.name}.new-"
    _sweep(target.parent, prefix)
    # Named before it is made: a signal at any moment finds what to remove.
    scratch = target.parent / f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        scratch.mkdir(mode=0o700)
        folder = scaffold.render(answers, scratch)
        folder.chmod(0o777 & ~_umask())
        commit = scaffold.first_commit(
            folder, answers["branch"], f"Start {answers['project']} from ctflow's template"
        )
        require_free(target)
        folder.rename(target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return NewProject(target, commit)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sweep(parent: Path, prefix: str) -> None:
    """Remove what calls that are gone have left."""
    for left in parent.glob(f"{_escape(prefix)}*-*"):
        pid = left.name[len(prefix) :].partition("-")[0]
        if pid.isdigit() and not _alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)


def _escape(text: str) -> str:
    import glob

    return glob.escape(text)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
