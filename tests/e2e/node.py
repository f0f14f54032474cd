"""The end-to-end node: its servers, started when the first test asks for them."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

SCRIPTS = Path(__file__).parent / "servers"


def _cache() -> Path:
    """Where builds and the servers' state are; tests/conftest.py has moved the home folder."""
    return Path(os.environ["TESTS_E2E_CACHE"])


def _started() -> Path:
    """Is there while servers run that a test started."""
    return _cache() / "started-by-tests"


def _environ() -> dict[str, str]:
    """What the scripts are told."""
    told = {f"CTFLOW_E2E_{key}": os.environ[f"TESTS_E2E_{key}"] for key in ("CACHE", "SERVERS")}
    return {**os.environ, **told}


def missing() -> str:
    """Why there are no servers to start, in a line; empty where all is prepared."""
    if os.environ["TESTS_E2E_SERVERS"]:
        return ""
    if os.getuid() != 0:
        return "the end-to-end node needs root"
    checked = subprocess.run([SCRIPTS / "prepare", "--check"], capture_output=True, env=_environ())
    return "" if checked.returncode == 0 else "run tests/e2e/servers/prepare"


@dataclass(frozen=True)
class Node:
    """Addresses of the servers; `s3_in_pods` is `s3` as a pod reaches it."""

    kubeconfig: Path
    kfp: str
    mlmd: str
    s3: str
    s3_in_pods: str
    image: str

    def recorded(self, run_id: str) -> Any:
        """What ML Metadata has of a run."""
        python = subprocess.check_output(
            [SCRIPTS / "mlmd", "python"], text=True, env=_environ()
        ).strip()
        command = [python, str(SCRIPTS / "recorded.py"), self.mlmd, run_id]
        return json.loads(subprocess.check_output(command, text=True))

    def kubectl(self, *words: str) -> str:
        """What kubectl says."""
        return subprocess.check_output([SCRIPTS / "kubectl", *words], text=True, env=_environ())


@contextmanager
def running() -> Iterator[Node]:
    """The servers while somebody uses them; who started them last ends them.

    Test processes share them: each holds a lock, and the last to let it go takes the servers down
    if a test started them.
    """
    if os.environ["TESTS_E2E_SERVERS"]:
        yield _node()
        return
    _cache().mkdir(parents=True, exist_ok=True)
    with _lock("used") as used, _lock("starting") as starting:
        fcntl.flock(used, fcntl.LOCK_SH)
        fcntl.flock(starting, fcntl.LOCK_EX)
        if not (_cache() / "run").exists():
            _started().touch()
        try:
            node = _node()
            fcntl.flock(starting, fcntl.LOCK_UN)
            yield node
        finally:
            _leave(used)


def _leave(used: IO[str]) -> None:
    if not _started().exists():
        return
    try:
        fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return  # Another process still tests.
    _started().unlink(missing_ok=True)
    subprocess.run([SCRIPTS / "down"], check=True, env=_environ())


@contextmanager
def _lock(name: str) -> Iterator[IO[str]]:
    with (_cache() / f"{name}.lock").open("a") as file:
        yield file


def _node() -> Node:
    """Start what does not run, and read the addresses."""
    begun = time.monotonic()
    up = subprocess.run([SCRIPTS / "up"], capture_output=True, text=True, env=_environ())
    if up.returncode:
        raise RuntimeError(f"the servers did not start:\n{up.stderr[-4000:]}")
    told = dict(re.findall(r"^(?:export )?(\w+)=['\"]?([^'\"\n]*)", up.stdout, re.M))
    print(f"servers: up after {time.monotonic() - begun:.0f} s")
    return Node(
        Path(told["KUBECONFIG"]), told["CTFLOW_E2E_KFP"], told["CTFLOW_E2E_MLMD"],
        told["CTFLOW_E2E_S3"], told["CTFLOW_E2E_S3_IN_PODS"], told["CTFLOW_E2E_IMAGE"],
    )  # fmt: skip
