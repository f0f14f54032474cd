"""Tripwires: no test reads or writes the home folder, asks a network, or skips in CI unseen."""

from __future__ import annotations

import ipaddress
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# A slow machine is no failure. Here and not in tests/__init__.py, since servers import that too.
settings.register_profile("ctflow", deadline=None)
settings.load_profile("ctflow")

#: What would make git, uv or ctflow itself work on something other than what a test set up.
_LEAKS = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL",
    "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL", "EMAIL", "VIRTUAL_ENV", "UV_PYTHON",
    "GITHUB_ACTIONS", "GITHUB_TOKEN", "KUBECONFIG",
)  # fmt: skip
#: What the tests themselves are told.
_OURS = ("CTFLOW_CI", "CTFLOW_E2E_MLMD")
_GIT_CONFIG = """\
[user]
\tname = Ada Lovelace
\temail = ada@example.org
[init]
\tdefaultBranch = master
[gc]
\tauto = 0
"""
_reached: list[str] = []


def pytest_configure(config: pytest.Config) -> None:
    """Move the home folder before anything looks at it; only uv's own cache stays where it is."""
    environ = os.environ
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    environ.setdefault("UV_CACHE_DIR", f"{cache}/uv")
    # Under other names, since ctflow takes each variable of its own for a key of its configuration.
    environ.setdefault("TESTS_E2E_CACHE", environ.get("CTFLOW_E2E_CACHE") or f"{cache}/ctflow-e2e")
    environ.setdefault("TESTS_E2E_SERVERS", environ.get("CTFLOW_E2E_SERVERS", ""))
    home = Path(tempfile.mkdtemp(prefix="ctflow-tests-"))
    config.add_cleanup(lambda: shutil.rmtree(home, ignore_errors=True))
    (home / "gitconfig").write_text(_GIT_CONFIG, encoding="utf-8")
    for key in [*_LEAKS, *(key for key in environ if key.startswith(("CTFLOW_", "XDG_")))]:
        if key not in _OURS:
            environ.pop(key, None)
    environ.update(
        HOME=str(home),
        XDG_CACHE_HOME=str(home / "cache"),
        GIT_CONFIG_GLOBAL=str(home / "gitconfig"),
        GIT_CONFIG_NOSYSTEM="1",
        GIT_TERMINAL_PROMPT="0",
        UV_OFFLINE="1",
        PIP_NO_INDEX="1",
    )
    sys.addaudithook(_guard)


def _guard(event: str, args: tuple[Any, ...]) -> None:
    """Refuse connections that leave the machine; a refusal that is swallowed still fails."""
    if event in {"socket.connect", "socket.sendto"} and isinstance(args[1], tuple):
        host = str(args[1][0])
    elif event == "socket.getaddrinfo":
        host = "" if args[0] is None else str(args[0])
    else:
        return
    if not _is_loopback(host):
        _reached.append(host)
        raise PermissionError(f"a test reached for {host!r}; tests stay on this machine")


def _is_loopback(host: str) -> bool:
    if host in {"", "localhost"}:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


@pytest.fixture(autouse=True)
def _stays_on_this_machine() -> Iterator[None]:
    """Fail the test that reached out, also where its own code caught the refusal."""
    _reached.clear()
    yield
    hosts, _reached[:] = list(_reached), []
    if hosts:
        pytest.fail(f"the test reached for {', '.join(hosts)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a test that would skip, for want of a server or a tool, fails: it proved nothing."""
    report = yield
    if os.environ.get("CTFLOW_CI") and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not allow: {report.longrepr}"
    return report
