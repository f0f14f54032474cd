"""A repository's files where there are none yet: inside a pod."""

from __future__ import annotations

import base64
from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import urlsplit

from ctflow.errors import StateError
from ctflow.lib import git_command
from ctflow.lib.secrets import KNOWN

#: Who commits where git does not know anybody.
_NAME, _MAIL = "ctflow", "ctflow@localhost"


def checkout(url: str, commit: str, target: Path) -> Path:
    """Clone a repository to ``target`` and check out a commit (empty: its default branch).

    Raises:
        StateError: the repository has no such commit.
        OutsideError: git fails.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    git_command.answer(
        target.parent, "clone", "--quiet", "--", url, str(target), timeout=git_command.LONG
    )
    if commit:
        if git_command.attempt(target, "cat-file", "-e", f"{commit}^{{commit}}") is None:
            raise StateError(
                f"the repository has no commit {commit[:12]}",
                cause="it was not pushed, or to another repository",
                next="push its branch, then run again",
            )
        git_command.answer(target, "checkout", "--quiet", "--detach", commit)
    return target


def use_login(url: str, token: str, environ: MutableMapping[str, str]) -> None:
    """Let each git that is started from here log in with a token at the URL's host, and commit.

    Git reads settings from variables (``GIT_CONFIG_COUNT``, git 2.31), so that the token is in no
    file and in no command line.
    """
    environ.setdefault("GIT_AUTHOR_NAME", _NAME)
    environ.setdefault("GIT_AUTHOR_EMAIL", _MAIL)
    environ.setdefault("GIT_COMMITTER_NAME", environ["GIT_AUTHOR_NAME"])
    environ.setdefault("GIT_COMMITTER_EMAIL", environ["GIT_AUTHOR_EMAIL"])
    parts = urlsplit(url)
    if not token or parts.scheme not in ("http", "https"):
        return
    login = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    KNOWN.add(token, login)
    count = int(environ.get("GIT_CONFIG_COUNT", "0") or 0)
    environ[f"GIT_CONFIG_KEY_{count}"] = f"http.{parts.scheme}://{parts.netloc}/.extraHeader"
    environ[f"GIT_CONFIG_VALUE_{count}"] = f"Authorization: Basic {login}"
    environ["GIT_CONFIG_COUNT"] = str(count + 1)
