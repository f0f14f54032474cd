"""Who asks Kubeflow Pipelines: a token, a header or a cookie, none of them in a file of git's."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ctflow.errors import ConfigError, OutsideError
from ctflow.lib.secrets import KNOWN
from ctflow.lib.text import one_line

#: Seconds that a command may take to print a token.
_COMMAND = 60.0
#: A token is made anew this many seconds before it ends.
_EARLY = 30.0
#: A token that says no end is asked for again after this many seconds.
_LIFE = 300.0
#: Where Kubernetes puts the token of a service account for KFP, when a pod asks for one.
VOLUME = "/var/run/secrets/kubeflow/pipelines/token"


def _header(name: str, value: str, where: str) -> dict[str, str]:
    value = value.strip()
    if not value or not value.isprintable() or not value.isascii():
        raise ConfigError(f"{where} holds no credential", next="set it to one line of text")
    KNOWN.add(value)
    return {name: value}


class FromVariable:
    """A header whose value is in an environment variable.

    Args:
        before: what stands before the value, such as ``Bearer``.
    """

    def __init__(
        self, variable: str, environ: Mapping[str, str], header: str, before: str = ""
    ) -> None:
        self._variable, self._environ = variable, environ
        self._name, self._before = header, before

    def headers(self) -> Mapping[str, str]:
        """Raises ConfigError where the variable is not set."""
        value = self._environ.get(self._variable, "")
        if not value:
            raise ConfigError(
                f"the environment variable {self._variable} is not set",
                cause="kubeflow.auth names it",
                next="set it, or change kubeflow.auth",
            )
        found = _header(self._name, value, f"the environment variable {self._variable}")
        return {name: f"{self._before}{text}" for name, text in found.items()}

    def renew(self) -> bool:
        """The variable stays as it is."""
        return False


class FromFile:
    """A token in a file that somebody else renews, such as Kubernetes does."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last = ""

    def headers(self) -> Mapping[str, str]:
        """Raises ConfigError where the file cannot be read."""
        try:
            self._last = self._path.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(
                f"cannot read the token in {self._path}: {why}",
                next="correct kubeflow.auth.token_file",
            ) from None
        return {
            key: f"Bearer {value}"
            for key, value in _header("Authorization", self._last, str(self._path)).items()
        }

    def renew(self) -> bool:
        """Whether the file holds another one now."""
        try:
            return self._path.read_text(encoding="utf-8").strip() != self._last
        except (OSError, UnicodeDecodeError):
            return False


class FromCommand:
    """A token that a command prints; asked for again before it ends, and after a 401.

    The end of a JSON web token is the ``exp`` that it carries (RFC 7519, section 4.1.4).
    """

    def __init__(self, command: Sequence[str], folder: Path) -> None:
        self._command, self._folder = list(command), folder
        self._token, self._ends = "", 0.0

    def headers(self) -> Mapping[str, str]:
        """Raises ConfigError where there is no such command, OutsideError where it fails."""
        if not self._token or time.time() > self._ends:
            self._token = self._ask()
            self._ends = _end_of(self._token)
        return {"Authorization": f"Bearer {self._token}"}

    def renew(self) -> bool:
        """Ask the command for another token; whether it is another."""
        before, self._token = self._token, self._ask()
        self._ends = _end_of(self._token)
        return self._token != before

    def _ask(self) -> str:
        name = f"the command of kubeflow.auth.token_command ({self._command[0]})"
        try:
            done = subprocess.run(
                self._command, cwd=self._folder, capture_output=True, timeout=_COMMAND,
                stdin=subprocess.DEVNULL,
            )  # fmt: skip
        except FileNotFoundError:
            raise ConfigError(f"{name} is not installed", next="install or correct it") from None
        except (OSError, subprocess.TimeoutExpired) as error:
            raise OutsideError(f"{name} failed: {one_line(str(error), 160)}") from None
        if done.returncode != 0:
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise OutsideError(
                f"{name} failed with exit code {done.returncode}",
                cause=one_line(said[-1], 200) if said else "",
                next="run it by hand",
            )
        token = done.stdout.decode("utf-8", "replace").strip()
        return _header("token", token, f"the output of {name}")["token"]


def _end_of(token: str) -> float:
    """When to ask for another, in seconds since the epoch."""
    now = time.time()
    try:
        part = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return max(now + 1.0, float(claims["exp"]) - _EARLY)
    except (ValueError, LookupError, TypeError):
        return now + _LIFE
