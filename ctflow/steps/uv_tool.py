"""uv as a program: where it is, what variables it gets, and what its failures mean."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ctflow.errors import ConfigError, OutsideError

#: Variables that would point uv, or a process in the environment, at another environment.
_MISLEADING = (
    "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__",
)  # fmt: skip
#: What pip calls something -> what uv calls it: a user who set up pip need not set up uv too.
_PIP_NAMES = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_FIND_LINKS": ("UV_FIND_LINKS",),
    "PIP_CERT": ("SSL_CERT_FILE",),
}
_DISK_FULL = re.compile(r"no space left|disk quota exceeded|os error 28\b", re.IGNORECASE)
_UNREACHABLE = re.compile(
    r"network (?:connectivity )?(?:is|was) disabled|failed to fetch|error sending request|"
    r"dns error|could not connect|connection (?:refused|reset)|timed? ?out|tls|certificate|"
    r"\b(?:401|403|407|429|5\d\d) [A-Z]",
    re.IGNORECASE,
)
_WRONG = re.compile(
    r"no solution found|couldn't parse requirement|unsatisfiable|was not found in|"
    r"failed to (?:build|parse)|unexpected|invalid|hash mismatch|unsupported",
    re.IGNORECASE,
)


def find_uv(environ: Mapping[str, str]) -> str:
    """The uv that ctflow was installed with, else the one on the path. Raises OutsideError."""
    try:
        import uv

        return os.fsdecode(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv", path=environ.get("PATH"))
        if found is None:
            raise no_uv() from None
        return found


def no_uv() -> OutsideError:
    """There is none."""
    return OutsideError(
        "uv, which makes Python environments, is not installed",
        cause="ctflow was installed without its dependencies",
        next="install it: `python -m pip install uv`",
    )


def uv_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's variables for uv, pip's among them by uv's names."""
    variables = {key: value for key, value in environ.items() if key not in _MISLEADING}
    for pip_name, uv_names in _PIP_NAMES.items():
        if variables.get(pip_name) and not any(name in variables for name in uv_names):
            variables[uv_names[0]] = variables[pip_name]
    variables["UV_NO_PROGRESS"] = "1"
    variables["NO_COLOR"] = "1"
    return variables


def uv_error(code: int, output: str) -> ConfigError | OutsideError:
    """What uv's exit code and its output, standard error included, mean to a user."""
    lines = tuple(line.rstrip() for line in output.splitlines() if line.strip())[-12:]
    if code < 0:
        return OutsideError(
            f"uv was killed by signal {-code} while it made a Python environment",
            next="run the same command again",
            details=lines,
        )
    if _DISK_FULL.search(output):
        return OutsideError(
            "the disk is full: the Python environment could not be made",
            next="make room, for example with `ctflow cache prune`, and run it again",
            details=lines,
        )
    if _UNREACHABLE.search(output):
        return OutsideError(
            "uv could not get the packages of requirements.txt",
            cause="the package index cannot be reached or refuses",
            next="check the network, UV_DEFAULT_INDEX and UV_OFFLINE, and run it again",
            details=lines,
        )
    if _WRONG.search(output):
        return ConfigError(
            "the requirements cannot be installed together", next="see uv's answer", details=lines
        )
    return OutsideError(
        f"uv failed with exit code {code}", next="see uv's own message", details=lines
    )


def find_python(version: str, environ: Mapping[str, str]) -> str | None:
    """An installed interpreter of a version such as ``3.13``, or None.

    uv looks on the path and among its own; pyenv's lie elsewhere, where its shims do not lead uv.
    """
    found = _ask(["python", "find", "--no-python-downloads", version], environ)
    if found:
        return found
    root = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    installed = sorted(root.glob(f"versions/{version}.*/bin/python"))
    return str(installed[-1]) if installed else None


def install_python(version: str, environ: Mapping[str, str]) -> str | None:
    """The same, brought by uv from where it gets Pythons; None: it cannot."""
    _ask(["python", "install", version], environ)
    return find_python(version, environ)


def _ask(words: list[str], environ: Mapping[str, str]) -> str | None:
    command = [find_uv(environ), "-q", *words]
    done = subprocess.run(command, env=uv_environ(environ), capture_output=True, cwd="/")
    text = done.stdout.decode("utf-8", "replace").strip()
    return text if done.returncode == 0 and text else None
