"""HTTP to one registry: authentication, retries, and what its refusals mean to a user.

Protocol: the OCI distribution specification 1.1; authentication as in "Token Authentication
Specification" and "OAuth2 token" of the distribution project.
"""

from __future__ import annotations

import base64
import errno
import ipaddress
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from ctflow.adapters.registry.credentials import Credential, Keychain
from ctflow.adapters.registry.reference import DOCKER_HUB
from ctflow.errors import CtflowError, OutsideError

#: Seconds to connect; seconds without a byte of the answer.
TIMEOUT = (10.0, 120.0)
_RETRIED = frozenset({408, 429, 500, 502, 503, 504})
_LONGEST_PAUSE = 30.0
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"|([a-zA-Z_]+)=([^",\s]+)')
_NO_SPACE = re.compile(rf'"Err":\s*{errno.ENOSPC}\b')
#: A token is taken for this many seconds where the server does not say.
_TOKEN_SECONDS = 60.0

Body = Callable[[], "bytes | Iterable[bytes]"]


@dataclass(frozen=True)
class Patience:
    """How often, and how long, a failing registry is asked again. ``base`` in seconds."""

    attempts: int = 5
    base: float = 0.25
    sleep: Callable[[float], None] = time.sleep

    def wait(self, attempt: int, told: float | None) -> None:
        """Pause after the ``attempt``-th failure (from 1): as told, else 2^n with jitter."""
        pause = self.base * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311
        self.sleep(min(_LONGEST_PAUSE, told if told is not None else pause))


class _NoAuth(requests.auth.AuthBase):
    """Keeps requests from putting a netrc's login over ours."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


@dataclass
class _Token:
    value: str
    ends: float


@dataclass
class Host:
    """One registry host.

    Args:
        name: as in references, such as ``ghcr.io`` or ``localhost:5000``.
        insecure: plain HTTP although it is not on this machine, as the user said.
    """

    name: str
    keychain: Keychain
    insecure: bool = False
    patience: Patience = field(default_factory=Patience)
    timeout: tuple[float, float] = TIMEOUT

    def __post_init__(self) -> None:
        self.loopback = is_loopback(self.name)
        scheme = "http" if self.loopback or self.insecure else "https"
        host = "registry-1.docker.io" if self.name == DOCKER_HUB else self.name
        self.base = f"{scheme}://{host}"
        self._tokens: dict[str, _Token] = {}
        self._challenge = ""
        self._lock = threading.Lock()
        self._session: requests.Session | None = None

    def request(
        self,
        method: str,
        path: str,
        *,
        repository: str,
        push: bool = False,
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        accept: frozenset[int] = frozenset(),
        stream: bool = False,
        attempts: int | None = None,
    ) -> requests.Response:
        """One request, tried again while it may help.

        Args:
            path: below the host, or a whole URL (an upload's place).
            accept: statuses from 400 that are an answer to the caller, not an error.
            attempts: instead of the host's.

        Raises:
            OutsideError: the registry is down, refuses, or keeps failing.
        """
        url = urljoin(self.base, path)
        last = attempts or self.patience.attempts
        for attempt in range(1, last + 1):
            try:
                answer = self._authorised(method, url, repository, push, headers, body, stream)
            except requests.RequestException as error:
                problem = self._unreachable(error)
                if attempt == last or isinstance(error, requests.exceptions.SSLError):
                    raise problem from None
                self.patience.wait(attempt, None)
                continue
            if answer.status_code < 400 or answer.status_code in accept:
                return answer
            if answer.status_code not in _RETRIED or attempt == last or _full(answer):
                raise self._refusal(answer, repository, push)
            told = _retry_after(answer)
            answer.close()
            self.patience.wait(attempt, told)
        raise AssertionError("attempts is at least 1")

    # -- authentication ---------------------------------------------------------------------------

    def _authorised(
        self,
        method: str,
        url: str,
        repository: str,
        push: bool,
        headers: Mapping[str, str] | None,
        body: Body | None,
        stream: bool,
    ) -> requests.Response:
        scope = f"repository:{repository}:{'pull,push' if push else 'pull'}"
        own = urlsplit(url).netloc == urlsplit(self.base).netloc
        # The first request without a login tells how the registry wants it; later ones know.
        for again in (False, True):
            sent = dict(headers or {})
            # An upload's place may be on another host, which is not to see the login.
            if own and (authorization := self._authorization(scope, repository)):
                sent["Authorization"] = authorization
            data = body() if body is not None else None
            answer = self._open().request(
                method, url, headers=sent, data=data, stream=stream, timeout=self.timeout,
                auth=_NoAuth(),
            )  # fmt: skip
            if answer.status_code != 401 or again or not own:
                return answer
            challenge = answer.headers.get("WWW-Authenticate", "")
            if not challenge:
                return answer
            answer.close()
            with self._lock:
                self._challenge = challenge
                self._tokens.pop(scope, None)
        return answer

    def _authorization(self, scope: str, repository: str) -> str:
        if not self._challenge:
            return ""
        kind = self._challenge.split(" ", 1)[0].lower()
        credential = self.keychain.find(self.name, repository)
        if kind == "basic":
            return _basic(credential) if credential else ""
        if kind != "bearer":
            return ""
        with self._lock:
            token = self._tokens.get(scope)
            if token is None or token.ends < time.monotonic():
                token = self._tokens[scope] = self._token(scope, credential)
        return f"Bearer {token.value}"

    def _token(self, scope: str, credential: Credential | None) -> _Token:
        named = {m[1] or m[3]: m[2] or m[4] or "" for m in _PARAMETER.finditer(self._challenge)}
        realm = named.get("realm", "")
        if not realm.startswith("https://") and self.base.startswith("https://"):
            raise OutsideError(
                f"registry {self.name} sends the login to {realm or 'nowhere'}, without encryption",
                next="ask whoever runs the registry",
            )
        fields = {"scope": scope, "client_id": "ctflow"}
        if named.get("service"):
            fields["service"] = named["service"]
        session = self._open()
        if credential and credential.identity:
            fields |= {"grant_type": "refresh_token", "refresh_token": credential.identity}
            answer = session.post(realm, data=fields, timeout=self.timeout, auth=_NoAuth())
        else:
            sent = {"Authorization": _basic(credential)} if credential else {}
            answer = session.get(
                realm, params=fields, headers=sent, timeout=self.timeout, auth=_NoAuth()
            )
        if answer.status_code in _RETRIED:
            raise requests.ConnectionError(f"the token server answered {answer.status_code}")
        if answer.status_code != 200:
            raise self._login(scope.split(":")[1], answer.status_code, credential is not None)
        try:
            data = answer.json()
            value = str(data.get("token") or data["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise OutsideError(
                f"the token server of {self.name} gave no token", next="ask whoever runs it"
            ) from None
        seconds = float(data.get("expires_in") or _TOKEN_SECONDS)
        return _Token(value, time.monotonic() + max(5.0, seconds * 0.8))

    # -- what goes wrong --------------------------------------------------------------------------

    def _unreachable(self, error: requests.RequestException) -> OutsideError:
        name = self.name
        if isinstance(error, requests.exceptions.SSLError):
            if "WRONG_VERSION_NUMBER" in str(error) or "wrong version" in str(error).lower():
                return OutsideError(
                    f"registry {name} speaks plain HTTP",
                    next="if that is meant, set `images: {insecure: true}` in ctflow.yaml",
                )
            return OutsideError(
                f"registry {name}: its certificate is not trusted here",
                next="point REQUESTS_CA_BUNDLE at the authority that signed it",
            )
        if isinstance(error, requests.Timeout):
            return OutsideError(
                f"registry {name} does not answer", next="check the network, and run it again"
            )
        return OutsideError(
            f"cannot reach registry {name}",
            cause=_reason(error),
            next="check the name and that it runs, then run the same command again",
        )

    def _refusal(self, answer: requests.Response, repository: str, push: bool) -> CtflowError:
        said = _said(answer)
        status = answer.status_code
        place = f"{self.name}/{repository}"
        if status == 401:
            known = self.keychain.find(self.name, repository) is not None
            return self._login(repository, status, known)
        if status == 403:
            return OutsideError(
                f"registry {self.name} does not let you {'push to' if push else 'read'} {place}",
                cause=said,
                next=f"ask for access, or log in as another user with `docker login {self.name}`",
            )
        if status == 404:
            return OutsideError(
                f"{place} is not there, or not for you to see",
                cause=said,
                next="correct images.registry, or make the repository first",
            )
        if status == 429:
            return OutsideError(
                f"registry {self.name} says too many requests",
                cause=said,
                next=f"wait, or log in with `docker login {self.name}` for a higher limit",
            )
        if _full(answer):
            return OutsideError(
                f"registry {self.name} has no space left", next="make room there, and run it again"
            )
        return OutsideError(
            f"registry {self.name} answered {status} for {place}",
            cause=said,
            next="see the registry's own log, and run the same command again",
        )

    def _login(self, repository: str, status: int, known: bool) -> OutsideError:
        if known:
            return OutsideError(
                f"registry {self.name} refuses the login for {repository} ({status})",
                cause="the password or token is wrong or has expired",
                next=f"log in again with `docker login {self.name}`",
            )
        return OutsideError(
            f"registry {self.name} asks for a login for {repository}",
            next=f"run `docker login {self.name}` (or `podman login`)",
        )

    def _open(self) -> requests.Session:
        if self._session is None:
            session = requests.Session()
            # Proxies are for the outside; a registry on this machine is not behind one.
            session.trust_env = not self.loopback
            adapter = HTTPAdapter(pool_connections=4, pool_maxsize=16)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            self._session = session
        return self._session


def is_loopback(host: str) -> bool:
    """Whether a host (with or without port) is this machine."""
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"


def _retry_after(answer: requests.Response) -> float | None:
    try:
        return max(0.0, float(answer.headers.get("Retry-After", "")))
    except ValueError:
        return None  # a date, or none: our own pause will do


def _reason(error: Exception) -> str:
    text = str(error)
    for known in ("Connection refused", "Name or service not known", "Connection reset",
                  "No route to host", "Temporary failure in name resolution"):  # fmt: skip
        if known in text:
            return known.lower()
    return text.splitlines()[0][:160] if text else type(error).__name__


def _said(answer: requests.Response) -> str:
    """The registry's own words: code and message of the first error, as plain text."""
    try:
        data: Any = answer.json()
        first = data["errors"][0]
        text = str(first.get("message") or first.get("code") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, requests.RequestException):
        return ""
    return "".join(c if c.isprintable() else " " for c in text)[:200]


def _full(answer: requests.Response) -> bool:
    """Whether the registry's disk is full: some say so, docker-registry gives Go's error number."""
    if answer.status_code == 507:
        return True
    try:
        if answer.status_code < 500:
            return False
        text = answer.text
    except requests.RequestException:
        return False
    return "no space left" in text.lower() or _NO_SPACE.search(text) is not None
