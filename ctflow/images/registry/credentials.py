"""A registry's credentials, found where the docker client (and podman) keep them.

Sources, in order: ``REGISTRY_AUTH_FILE``; ``config.json`` in ``DOCKER_CONFIG`` or ``~/.docker``;
podman's ``containers/auth.json`` in ``XDG_RUNTIME_DIR`` or ``~/.config``. Of each file:
``credHelpers`` for the host, then ``auths``, then ``credsStore``. The helpers' protocol is that of
docker-credential-helpers: ``get`` with the host on standard input, JSON on standard output.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ctflow.errors import OutsideError
from ctflow.images.registry.reference import DOCKER_HUB
from ctflow.lib.secrets import KNOWN

_HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9._-]+")
_HELPER_SECONDS = 60


@dataclass(frozen=True)
class Credential:
    """User name and password; or ``identity``, a refresh token. Never shown in messages."""

    username: str = ""
    password: str = ""
    identity: str = ""

    def __repr__(self) -> str:
        return f"Credential({self.username!r}, ...)"


class Keychain:
    """Looks up credentials; a host is asked for once."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._known: dict[str, Credential | None] = {}

    def find(self, host: str, repository: str = "") -> Credential | None:
        """The credential for a host, or None. Raises OutsideError when a helper fails."""
        key = f"{host}/{repository}"
        if key not in self._known:
            found = self._known[key] = self._look(host, repository)
            if found is not None:
                KNOWN.add(found.password, found.identity)
        return self._known[key]

    def _look(self, host: str, repository: str) -> Credential | None:
        for file in self._files():
            try:
                data = json.loads(file.read_text(encoding="utf-8"))
            except OSError:
                continue
            except ValueError:
                raise OutsideError(
                    f"{file} is not JSON",
                    next="log in again with `docker login`, which writes the file again",
                ) from None
            if isinstance(data, dict):
                found = self._in_file(data, host, repository)
                if found is not None:
                    return found
        return None

    def _files(self) -> Iterator[Path]:
        environ = self._environ
        home = Path(environ.get("HOME") or Path.home())
        if named := environ.get("REGISTRY_AUTH_FILE"):
            yield Path(named)
        yield Path(environ.get("DOCKER_CONFIG") or home / ".docker") / "config.json"
        if runtime := environ.get("XDG_RUNTIME_DIR"):
            yield Path(runtime) / "containers" / "auth.json"
        yield home / ".config" / "containers" / "auth.json"

    def _in_file(self, data: dict[str, Any], host: str, repository: str) -> Credential | None:
        helper = (data.get("credHelpers") or {}).get(host)
        if helper:
            return self._ask(str(helper), _HUB_KEY if host == DOCKER_HUB else host)
        auths = data.get("auths") or {}
        for key in _keys(host, repository):
            entry = auths.get(key)
            if isinstance(entry, dict) and (found := _entry(entry)) is not None:
                return found
        if store := data.get("credsStore"):
            return self._ask(str(store), _HUB_KEY if host == DOCKER_HUB else host)
        return None

    def _ask(self, helper: str, server: str) -> Credential | None:
        program = f"docker-credential-{helper}"
        if not _HELPER.fullmatch(helper):
            raise OutsideError(
                f"{helper!r} is not the name of a credential helper",
                next="correct docker's config.json",
            )
        try:
            done = subprocess.run(
                [program, "get"], input=server, capture_output=True, text=True,
                timeout=_HELPER_SECONDS, env=dict(self._environ),
            )  # fmt: skip
        except FileNotFoundError:
            raise OutsideError(
                f"{program} is not on the PATH",
                cause="docker's config.json names it",
                next=f"install it, or log in again with `docker login {server}`",
            ) from None
        except subprocess.TimeoutExpired:
            raise OutsideError(
                f"{program} did not answer within {_HELPER_SECONDS} s",
                next=f"run {program} yourself to see why",
            ) from None
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            if "not found" in said.lower():
                return None
            raise OutsideError(
                f"{program} failed: {said[:200] or f'exit code {done.returncode}'}",
                next=f"run {program} yourself to see why",
            )
        try:
            answer = json.loads(done.stdout)
            username, secret = str(answer["Username"]), str(answer["Secret"])
        except (ValueError, KeyError, TypeError):
            raise OutsideError(
                f"{program} returned no credential", next=f"run {program} yourself to see why"
            ) from None
        if username == "<token>":
            return Credential(identity=secret)
        return Credential(username, secret)


def _keys(host: str, repository: str) -> Iterator[str]:
    """The names under which a login may be kept, the closest first."""
    parts = [host, *repository.split("/")] if repository else [host]
    for end in range(len(parts), 0, -1):
        yield "/".join(parts[:end])
    hosts = [host, "index.docker.io"] if host == DOCKER_HUB else [host]
    for one in hosts:
        for scheme in ("https://", "http://", ""):
            for path in ("", "/", "/v1/", "/v2/"):
                yield f"{scheme}{one}{path}"


def _entry(entry: dict[str, Any]) -> Credential | None:
    identity = str(entry.get("identitytoken") or "")
    username, password = str(entry.get("username") or ""), str(entry.get("password") or "")
    if entry.get("auth"):
        try:
            text = base64.b64decode(str(entry["auth"]), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise OutsideError(
                "docker's config.json holds a login that is not base64",
                next="log in again with `docker login`",
            ) from None
        username, _, password = text.partition(":")
        password = password.rstrip("\0")
    if not (identity or username):
        return None  # an empty entry marks a login that is in the store
    return Credential(username, password, identity)
