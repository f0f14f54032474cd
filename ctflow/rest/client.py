"""Calls of a JSON API over HTTP: timeouts, repeated tries, credentials, errors in one line.

A call that only reads is tried again when the network or the server fails. One that changes
something is tried again only where the server cannot have acted; else ``ApiError.unsure`` is true,
and the caller looks before it asks again.
"""

from __future__ import annotations

import json as json_text
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from ctflow.lib.text import one_line
from ctflow.rest.faults import ApiError, never_sent, unreachable
from ctflow.rest.loopback import is_loopback
from ctflow.rest.patience import TEMPORARY, Patience, retry_after

#: Seconds to connect; seconds without a byte of the answer.
TIMEOUT = (10.0, 60.0)
#: An answer may have this many bytes: what lists and packages need, and no more.
MOST = 256 * 2**20


class Credentials(Protocol):
    """Who asks."""

    def headers(self) -> Mapping[str, str]:
        """The headers that say it. Raises OutsideError or ConfigError where they cannot be had."""
        ...

    def renew(self) -> bool:
        """After a 401: whether they are others now, so that asking again may help."""
        ...


class Nobody:
    """No credentials."""

    def headers(self) -> Mapping[str, str]:
        """None."""
        return {}

    def renew(self) -> bool:
        """No."""
        return False


class _OwnHeaders(requests.auth.AuthBase):
    """Keeps requests from putting a netrc's login over ours."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


@dataclass
class Api:
    """A JSON API.

    Args:
        name: for messages, such as ``Kubeflow Pipelines at https://kfp.acme.dev``.
        base: the URL that paths are joined to, without a slash at its end.
        verify: check certificates: by the system's authorities, or by those in a file.
        certificate: files of a client's certificate and key.
        ca_key, auth_key: the settings that say who is trusted, and who asks; for messages.
        said: finds the server's own words in the JSON of a refusal; empty where there are none.
    """

    name: str
    base: str
    credentials: Credentials = field(default_factory=Nobody)
    verify: bool | str = True
    certificate: tuple[str, str] | None = None
    ca_key: str = "REQUESTS_CA_BUNDLE"
    auth_key: str = "the credentials"
    patience: Patience = field(default_factory=Patience)
    timeout: tuple[float, float] = TIMEOUT
    said: Callable[[Any], str] | None = None

    def __post_init__(self) -> None:
        self._session: requests.Session | None = None
        #: How many requests were sent; printed by benchmarks.
        self.requests = 0

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """Read. Raises ApiError."""
        return self.call("GET", path, query=query, reads=True)

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        json: Any = None,
        file: tuple[str, bytes] | None = None,
        reads: bool = False,
        plain: bool = False,
        accept: str = "application/json",
        timeout: tuple[float, float] | None = None,
    ) -> Any:
        """One call; the answer's JSON ({} for an empty one).

        Args:
            file: (name, content) of the multipart field ``uploadfile``.
            reads: it changes nothing, so that it may be sent again.
            plain: the answer is text.
            accept: the form of JSON that is asked for.

        Raises:
            ApiError: the server is down, refuses, or answers no JSON.
        """
        data = None if json is None else json_text.dumps(json, allow_nan=False).encode()
        headers = {"Accept": "*/*" if plain else accept}
        if data is not None:
            headers["Content-Type"] = "application/json"
        last = self.patience.attempts
        renewed = False
        attempt = 1
        while True:
            try:
                answer = self._open().request(
                    method,
                    self.base + path,
                    params=query,
                    data=data,
                    files=None if file is None else {"uploadfile": file},
                    headers={**headers, **self.credentials.headers()},
                    auth=_OwnHeaders(),
                    timeout=timeout or self.timeout,
                    allow_redirects=False,
                    stream=True,
                    verify=self.verify,
                    cert=self.certificate,
                )
                self.requests += 1
                body = self._body(answer)
            except requests.RequestException as error:
                fault = unreachable(self.name, error, ca_key=self.ca_key)
                again = (reads or never_sent(error)) and not isinstance(
                    error, requests.exceptions.SSLError
                )
                if not again or attempt == last:
                    raise fault from None
                self.patience.wait(attempt, None)
                attempt += 1
                continue
            status = answer.status_code
            if status == 401 and not renewed and self.credentials.renew():
                renewed = True
                continue
            # 429 and 503 with a time to wait are from before any work was done.
            asked = retry_after(answer.headers)
            again = reads or status == 429 or (status == 503 and asked is not None)
            if status in TEMPORARY and again and attempt < last:
                self.patience.wait(attempt, asked)
                attempt += 1
                continue
            return self._read(answer, body, reads=reads, plain=plain)

    def _body(self, answer: requests.Response) -> bytes:
        found = bytearray()
        with answer:
            for part in answer.iter_content(2**20):
                found += part
                if len(found) > MOST:
                    raise ApiError(f"{self.name} sent an answer of more than {MOST >> 20} MiB")
        return bytes(found)

    def _read(self, answer: requests.Response, body: bytes, *, reads: bool, plain: bool) -> Any:
        status = answer.status_code
        text = body.decode("utf-8", "replace")
        page = not plain and _is_page(answer, text)
        if 300 <= status < 400 or (page and status in (200, 401, 403)):
            raise self._login_page(answer)
        if status >= 400:
            raise self._refusal(status, text, page=page, reads=reads)
        if plain:
            return text
        if page:
            raise ApiError(
                f"{self.name} answered with a web page instead of JSON",
                next="check that the address is that of the API",
                status=status,
            )
        if not text.strip():
            return {}
        try:
            return json_text.loads(text)
        except ValueError:
            # It may have done what was asked: what it said of it is lost.
            raise ApiError(
                f"{self.name} gave an answer that is not JSON",
                cause=one_line(text, 120),
                next="check that the address is that of the API",
                status=status,
                unsure=not reads,
            ) from None

    def _login_page(self, answer: requests.Response) -> ApiError:
        to = urlsplit(answer.headers.get("Location", "")).netloc
        return ApiError(
            f"{self.name} asks for a login" + (f" at {one_line(to, 80)}" if to else ""),
            cause="it answered with a web page instead of JSON",
            next=f"say who asks in {self.auth_key}, or correct the address",
            status=401,
        )

    def _refusal(self, status: int, text: str, *, page: bool, reads: bool) -> ApiError:
        said = "" if page else one_line(self._words(text), 300)
        unsure = status >= 500 and not reads
        if status == 401:
            return ApiError(
                f"{self.name} does not accept who asks (401)",
                cause=said,
                next=f"correct or renew what {self.auth_key} names",
                status=status,
                said=said,
            )
        if status == 403:
            return ApiError(
                f"{self.name} does not allow it (403)",
                cause=said,
                next="ask the administrator for the right to do this",
                status=status,
                said=said,
            )
        mend = "see the server's own log, then run the same command again" if status >= 500 else ""
        return ApiError(
            f"{self.name} answered {status}",
            cause=said,
            next=mend,
            status=status,
            said=said,
            unsure=unsure,
        )

    def _words(self, text: str) -> str:
        try:
            data = json_text.loads(text)
        except ValueError:
            return text
        if self.said is not None and (words := self.said(data)):
            return words
        if isinstance(data, dict):
            for key in ("message", "error_message", "error"):
                if isinstance(data.get(key), str):
                    return str(data[key])
        return ""

    def _open(self) -> requests.Session:
        if self._session is None:
            session = requests.Session()
            # Proxies are for the outside; a server on this machine is not behind one.
            session.trust_env = not is_loopback(urlsplit(self.base).netloc)
            adapter = HTTPAdapter(pool_connections=4, pool_maxsize=8)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            self._session = session
        return self._session


def _is_page(answer: requests.Response, text: str) -> bool:
    kind = answer.headers.get("Content-Type", "").lower()
    return "html" in kind or text.lstrip()[:9].lower().startswith(("<!doctype", "<html"))
