"""What an image's annotations tell of the repository, and which files changed since a commit."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from ctflow.errors import StateError
from ctflow.lib.git_command import attempt


def commit_time(root: Path, commit: str = "HEAD") -> int | None:
    """The committer's time of a commit, in seconds since 1970."""
    text = attempt(root, "log", "-1", "--format=%ct", commit)
    return int(text) if text and text.strip().isdigit() else None


def remote_url(root: Path, remote: str = "origin") -> str:
    """The remote's URL without a user or password; ``""`` where there is none, or only a folder."""
    url = (attempt(root, "config", "--get", f"remote.{remote}.url") or "").strip()
    if "://" not in url:
        user, at, rest = url.partition("@")
        host, colon, path = rest.partition(":")
        return f"https://{host}/{path}" if at and colon and "/" not in user else ""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https", "ssh", "git"):
        return ""
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port and parts.scheme.startswith("http") else ""
    return f"https://{host}{port}{parts.path}"


def changed_since(root: Path, rev: str) -> set[Path]:
    """The files that are not as they were at ``rev``, uncommitted and untracked ones too.

    Raises:
        StateError: git knows no such commit.
    """
    if (
        rev.startswith("-")
        or attempt(root, "rev-parse", "--verify", "-q", f"{rev}^{{commit}}") is None
    ):
        raise StateError(
            f"git knows no commit {rev!r} here",
            next="fetch it (in CI: a full checkout), or correct it",
        )
    top = Path((attempt(root, "rev-parse", "--show-toplevel") or "").rstrip("\n"))
    tracked = (
        attempt(root, "diff", "--name-only", "-z", "--no-renames", "--end-of-options", rev, "--")
        or ""
    )
    new = attempt(root, "ls-files", "--others", "--exclude-standard", "-z") or ""
    return {top / name for name in tracked.split("\0") if name} | {
        root.resolve() / name for name in new.split("\0") if name
    }


def texts_of_history(root: Path, folder: str) -> list[bytes]:
    """What was ever written below a folder, in any branch: the added lines, a text each commit."""
    text = attempt(
        root, "log", "--all", "-p", "--no-color", "--no-ext-diff", "--format=%x00", "--", folder
    )
    return (text or "").encode("utf-8", "surrogateescape").split(b"\0")
