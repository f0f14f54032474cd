"""HTTP to one registry: authentication and retries.

Protocol: the OCI distribution specification 1.1; authentication as in "Token Authentication
Specification" and "OAuth2 token" of the distribution project.
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter

from ctflow.errors import OutsideError
from ctflow.images.registry import refusals
from ctflow.images.registry.credentials import Credential, Keychain
from ctflow.images.registry.reference import DOCKER_HUB
from ctflow.rest.loopback import is_loopback
from ctflow.rest.patience import TEMPORARY, Patience, retry_after

#: Seconds to connect; seconds without a byte of the answer.
TIMEOUT = (10.0, 120.0)
#: A registry's 500 is often gone in a moment.
_RETRIED = TEMPORARY | {500}
_PARAMETER = re.compile(r'([a-zA-Z_]+)="([^"]*)"|([a-zA-Z_]+)=([^",\s]+)')
#: A token is taken for this many seconds where the server does not say.
_TOKEN_SECONDS = 60.0

Body = Callable[[], "bytes | Iterable[bytes]"]


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
        #: What the registry's clock is ahead of ours, in seconds.
        self.skew = 0.0
        self._tokens: dict[str, _Token] = {}
        self._challenge = ""
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        #: Whether it takes large blobs in chunks; found out when it refuses one.
        self.takes_chunks = True

    def request(
        self,
        method: str,
        path: str,
        *,
        repository: str,
        push: bool = False,
        reads: str = "",
        headers: Mapping[str, str] | None = None,
        body: Body | None = None,
        accept: frozenset[int] = frozenset(),
        stream: bool = False,
        attempts: int | None = None,
    ) -> requests.Response:
        """One request, tried again while it may help.

        Args:
            path: below the host, or a whole URL (an upload's place).
            reads: another repository that this reads: its token must allow both.
            accept: statuses from 400 that are an answer to the caller, not an error.
            attempts: instead of the host's.

        Raises:
            OutsideError: the registry is down, refuses, or keeps failing.
        """
        url = urljoin(self.base, path)
        last = attempts or self.patience.attempts
        for attempt in range(1, last + 1):
            try:
                answer = self._authorised(
                    method, url, repository, push, reads, headers, body, stream
                )
            except requests.RequestException as error:
                problem = refusals.unreachable(self.name, error)
                if attempt == last or isinstance(error, requests.exceptions.SSLError):
                    raise problem from None
                self.patience.wait(attempt, None)
                continue
            if answer.status_code < 400 or answer.status_code in accept:
                return answer
            if answer.status_code not in _RETRIED or attempt == last or refusals.is_full(answer):
                raise self._refusal(answer, repository, push)
            asked = retry_after(answer.headers)
            answer.close()
            self.patience.wait(attempt, asked)
        raise AssertionError("attempts is at least 1")

    # -- authentication ---------------------------------------------------------------------------

    def _authorised(
        self,
        method: str,
        url: str,
        repository: str,
        push: bool,
        reads: str,
        headers: Mapping[str, str] | None,
        body: Body | None,
        stream: bool,
    ) -> requests.Response:
        scope = f"repository:{repository}:{'pull,push' if push else 'pull'}"
        if reads:
            scope += f" repository:{reads}:pull"
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
            if own:
                self._note_time(answer)
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

    def _note_time(self, answer: requests.Response) -> None:
        try:
            server_time = parsedate_to_datetime(answer.headers["Date"]).timestamp()
        except (KeyError, ValueError, TypeError):
            return  # none, or none that is one: what was known stays
        ours = time.time()
        # The header has whole seconds: a clock that can be ours is taken as ours.
        self.skew = 0.0 if server_time - 1 <= ours <= server_time + 2 else server_time - ours

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
                next="ask the administrator of the registry",
            )
        fields = {"client_id": "ctflow"}
        if named.get("service"):
            fields["service"] = named["service"]
        session = self._open()
        if credential and credential.identity:
            fields |= {"grant_type": "refresh_token", "refresh_token": credential.identity}
            # Several scopes are one text here, and several fields in the query of the other way.
            answer = session.post(
                realm, data=fields | {"scope": scope}, timeout=self.timeout, auth=_NoAuth()
            )
        else:
            sent = {"Authorization": _basic(credential)} if credential else {}
            query = [*fields.items(), *(("scope", one) for one in scope.split())]
            answer = session.get(
                realm, params=query, headers=sent, timeout=self.timeout, auth=_NoAuth()
            )
        if answer.status_code in _RETRIED:
            raise requests.ConnectionError(f"the token server answered {answer.status_code}")
        if answer.status_code != 200:
            _, repository, actions = scope.split()[0].rsplit(":", 2)
            known = credential is not None
            if answer.status_code == 403:
                push = "push" in actions
                raise refusals.forbidden(self.name, repository, push=push, known=known)
            raise refusals.login(self.name, repository, known=known)
        try:
            data = answer.json()
            value = str(data.get("token") or data["access_token"])
        except (ValueError, KeyError, AttributeError):
            raise OutsideError(
                f"the token server of {self.name} returned no token",
                next="ask the administrator of the registry",
            ) from None
        seconds = float(data.get("expires_in") or _TOKEN_SECONDS)
        return _Token(value, time.monotonic() + max(5.0, seconds * 0.8))

    def _refusal(self, answer: requests.Response, repository: str, push: bool) -> OutsideError:
        known = self.keychain.find(self.name, repository) is not None
        return refusals.refusal(self.name, answer, repository, push=push, known=known)

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


def _basic(credential: Credential) -> str:
    pair = f"{credential.username}:{credential.password}".encode()
    return f"Basic {base64.b64encode(pair).decode()}"
