"""What the failures of HTTP mean to a user: one line each."""

from __future__ import annotations

import requests

from ctflow.errors import OutsideError
from ctflow.lib.text import one_line


class ApiError(OutsideError):
    """A server failed or refused.

    Attributes:
        status: the HTTP status; 0 where there was no answer.
        said: the server's own words, as one line.
        unsure: whether the server may have done what was asked all the same.
    """

    def __init__(
        self,
        fact: str,
        *,
        cause: str = "",
        next: str = "",
        status: int = 0,
        said: str = "",
        unsure: bool = False,
    ) -> None:
        super().__init__(fact, cause=cause, next=next)
        self.status = status
        self.said = said
        self.unsure = unsure


#: What the libraries below say, and what it means.
_REASONS = (
    "Connection refused",
    "Name or service not known",
    "Connection reset",
    "No route to host",
    "Temporary failure in name resolution",
)


def reason(error: Exception) -> str:
    """Why there was no connection, in a few words."""
    text = str(error)
    for known in _REASONS:
        if known in text:
            return known.lower()
    if "RemoteDisconnected" in text or "Connection aborted" in text:
        return "the connection was closed"
    return one_line(text, 160) or type(error).__name__


def never_sent(error: requests.RequestException) -> bool:
    """Whether the request cannot have reached the server."""
    if isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.SSLError)):
        return True
    return isinstance(error, requests.ConnectionError) and (
        "NewConnectionError" in repr(error) or "NameResolutionError" in repr(error)
    )


def unreachable(name: str, error: requests.RequestException, *, ca_key: str) -> ApiError:
    """There was no answer.

    Args:
        name: what was asked, such as ``Kubeflow Pipelines at https://...``.
        ca_key: the setting that names a certificate authority.
    """
    unsure = not never_sent(error)
    if isinstance(error, requests.exceptions.SSLError):
        return _untrusted(name, str(error), ca_key)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return ApiError(
            f"{name} does not answer", cause="no connection in time",
            next="check the address and the network, then run the same command again",
        )  # fmt: skip
    if isinstance(error, requests.Timeout):
        return ApiError(
            f"{name} does not answer in time", unsure=True,
            next="see the server's own log, then run the same command again",
        )  # fmt: skip
    return ApiError(
        f"cannot reach {name}",
        cause=reason(error),
        next="check the address and that it runs, then run the same command again",
        unsure=unsure,
    )


def _untrusted(name: str, text: str, ca_key: str) -> ApiError:
    low = text.lower()
    if "wrong_version_number" in low or "wrong version" in low or "record layer" in low:
        return ApiError(f"{name} uses plain HTTP", next="write http:// if this is intended")
    if "not yet valid" in low or "has expired" in low:
        what = "is not valid yet" if "not yet" in low else "has expired"
        return ApiError(
            f"the certificate of {name} {what}",
            next="check this machine's clock (`date`), else renew the certificate",
        )
    if "hostname mismatch" in low or "doesn't match" in low or "not valid for" in low:
        return ApiError(
            f"the certificate of {name} is for another host", next="correct the address"
        )
    return ApiError(
        f"the certificate of {name} is not trusted here",
        next=f"name the authority that signed it in {ca_key}",
    )
