"""What a registry's refusals, and its silence, mean to a user: one line each."""

from __future__ import annotations

import errno
import re
from typing import Any

import requests

from ctflow.errors import OutsideError
from ctflow.rest.faults import reason

_NO_SPACE = re.compile(rf'"Err":\s*{errno.ENOSPC}\b')
_ERROR = re.compile(r'\berror="?([a-z_]+)')


class Refused(OutsideError):
    """Asking again does not help."""


class Broken(OutsideError):
    """The registry itself fails (5xx), each time that it is asked.

    For one tag alone that may last: docker-registry leaves a damaged one behind where its disk was
    full, and answers 500 for it until it is pushed again.
    """


def unreachable(name: str, error: requests.RequestException) -> OutsideError:
    """There was no answer."""
    if isinstance(error, requests.exceptions.SSLError):
        if "WRONG_VERSION_NUMBER" in str(error) or "wrong version" in str(error).lower():
            return OutsideError(
                f"registry {name} uses plain HTTP",
                next="if this is intended, set `images: {insecure: true}` in ctflow.yaml",
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
        cause=reason(error),
        next="check the name and that it runs, then run the same command again",
    )


def refusal(
    name: str, answer: requests.Response, repository: str, *, push: bool, known: bool
) -> OutsideError:
    """The answer is an error.

    Args:
        known: a login was sent.
    """
    said = _said(answer)
    status = answer.status_code
    place = f"{name}/{repository}"
    if status == 401:
        return _unauthorised(name, answer, repository, push=push, known=known)
    if status == 403:
        return forbidden(name, repository, push=push, known=known, said=said)
    if status == 404:
        return Refused(
            f"{place} does not exist, or you may not read it",
            cause=said,
            next="correct images.registry, or create the repository first",
        )
    if status == 429:
        return OutsideError(
            f"registry {name} refused the request: too many requests",
            cause=said,
            next=f"wait, or log in with `docker login {name}` for a higher limit",
        )
    if is_full(answer):
        return Refused(
            f"registry {name} has no space left", next="make room there, and run it again"
        )
    return (Broken if status >= 500 else Refused)(
        f"registry {name} answered {status} for {place}",
        cause=said,
        next="see the registry's own log, and run the same command again",
    )


def _unauthorised(
    name: str, answer: requests.Response, repository: str, *, push: bool, known: bool
) -> Refused:
    """401, also with what the registry itself asked for.

    With tokens the login went to the token server, which gave a token: it is good, and the token
    does not allow enough. (RFC 6750, section 3.1, has the words of ``error``.)
    """
    challenge = answer.headers.get("WWW-Authenticate", "")
    if not known or not challenge.lower().startswith("bearer"):
        return login(name, repository, known=known)
    match = _ERROR.search(challenge)
    if match is not None and match[1] == "invalid_token":
        return Refused(
            f"registry {name} does not accept the token of its own token server",
            cause="their keys, or their clocks and this machine's, differ",
            next="check this machine's clock, and ask the administrator of the registry",
        )
    return forbidden(name, repository, push=push, known=known)


def forbidden(name: str, repository: str, *, push: bool, known: bool, said: str = "") -> Refused:
    """Whoever asks is not allowed to."""
    verb = "push to" if push else "read"
    if not known:
        return Refused(
            f"registry {name} does not let you {verb} {name}/{repository} without a login",
            cause=said,
            next=f"run `docker login {name}` (or `podman login`)",
        )
    access = "write access" if push else "access"
    return Refused(
        f"registry {name} accepts your login, but the login may not {verb} {name}/{repository}",
        cause=said,
        next=f"ask for {access} to it, log in as another user with `docker login {name}`, "
        "or correct images.registry",
    )


def login(name: str, repository: str, *, known: bool) -> Refused:
    """The login is wrong, or there is none."""
    if known:
        return Refused(
            f"registry {name} refuses the login for {repository}",
            cause="the password or token is wrong or has expired",
            next=f"log in again with `docker login {name}`",
        )
    return Refused(
        f"registry {name} requires a login for {repository}",
        next=f"run `docker login {name}` (or `podman login`)",
    )


def _said(answer: requests.Response) -> str:
    """The registry's own words: code and message of the first error, as plain text."""
    try:
        data: Any = answer.json()
        first = data["errors"][0]
        text = str(first.get("message") or first.get("code") or "")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, requests.RequestException):
        return ""
    return "".join(c if c.isprintable() else " " for c in text)[:200]


def is_full(answer: requests.Response) -> bool:
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
