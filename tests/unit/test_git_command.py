"""The one way to call git: its folder's repository, no questions, an end, and clean answers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ctflow.errors import OutsideError, StateError
from ctflow.lib.git_command import answer, attempt, no_redirections, run
from ctflow.lib.secrets import KNOWN
from ctflow.scm.git import GitScm
from tests.projects import git


def repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    git(folder, "commit", "-q", "--allow-empty", "-m", folder.name)
    return folder


@pytest.fixture
def redirected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, with variables as git sets them for a hook of another one."""
    own, other = repository(tmp_path / "own"), repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    return own


def test_a_hooks_variables_lead_nowhere_else(redirected: Path, tmp_path: Path) -> None:
    assert answer(redirected, "log", "-1", "--format=%s") == "own"
    scm = GitScm(redirected, tmp_path / "scratch")
    parent = scm.head().sha
    made = scm.commit_files(parent, {"a": b"1"}, "by GitPython")
    assert answer(redirected, "log", "-1", "--format=%s %P", made) == f"by GitPython {parent}"
    assert attempt(tmp_path / "other", "cat-file", "-e", made) is None
    assert os.environ["GIT_DIR"] == str(tmp_path / "other" / ".git")  # the caller's again


def test_threads_share_what_is_hidden(redirected: Path) -> None:
    """The first to leave must not bring the variables back under the other."""
    inside, leave = threading.Event(), threading.Event()

    def stay() -> None:
        with no_redirections():
            inside.set()
            leave.wait()

    other = threading.Thread(target=stay)
    other.start()
    inside.wait()
    with no_redirections():
        pass
    assert "GIT_DIR" not in os.environ
    leave.set()
    other.join()
    assert "GIT_DIR" in os.environ


class _Asks(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def asks() -> Iterator[str]:
    """A server that wants a password."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Asks) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_nobody_is_asked_for_a_password(
    tmp_path: Path, asks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_TERMINAL_PROMPT")
    monkeypatch.delenv("GIT_ASKPASS", raising=False)
    monkeypatch.delenv("SSH_ASKPASS", raising=False)
    with pytest.raises(OutsideError) as caught:
        answer(repository(tmp_path / "own"), "ls-remote", f"http://{asks}/x.git")
    assert caught.value.fact.startswith("git ls-remote failed: fatal: could not read Username")
    assert caught.value.next.startswith("log in first")


def test_what_git_says_shows_no_secret_and_no_control_character(tmp_path: Path, asks: str) -> None:
    own = repository(tmp_path / "own")
    with pytest.raises(OutsideError) as caught:
        answer(own, "ls-remote", f"http://ada:passphrase@{asks}/x.git")
    assert "Authentication failed" in str(caught.value)
    assert "passphrase" not in f"{caught.value} {caught.value.details}"
    KNOWN.add("hush-hush-word")
    with pytest.raises(OutsideError) as caught:
        answer(own, "-c", "alias.x=!printf 'error: \\033[31mhush-hush-word\\n' >&2; exit 3", "x")
    assert str(caught.value) == "git x failed: error: [31m***"


def test_a_git_that_does_not_end_is_ended(tmp_path: Path) -> None:
    """Also where what it started holds its output open."""
    own = repository(tmp_path / "own")
    wait = ("-c", "alias.x=!trap '' TERM; read forever < queue", "x")
    os.mkfifo(own / "queue")
    with pytest.raises(OutsideError, match=r"git x did not end within 0.2 s"):
        run(own, *wait, timeout=0.2)
    with (own / "queue").open("w") as stream:  # lets what is left of it end
        stream.write("\n")


def test_failures_that_are_not_gits_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StateError, match="there is no folder"):
        answer(tmp_path / "none", "status")
    with pytest.raises(StateError, match="is not in a git repository; run `git init`"):
        answer(tmp_path, "status")
    assert attempt(tmp_path, "status") is None
    own = repository(tmp_path / "own")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OutsideError, match="git is not installed; install git"):
        answer(own, "status")
    with pytest.raises(OutsideError, match="git is not installed; install git"):
        GitScm(own, tmp_path / "scratch").identity()
