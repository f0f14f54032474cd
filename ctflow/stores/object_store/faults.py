"""What an object store's library raises, as one line with the next step."""

from __future__ import annotations

import re

from ctflow.errors import OutsideError
from ctflow.lib.quick import dataclass
from ctflow.model.store_url import StoreUrl

#: Variables that say who asks, by scheme; for messages.
WHO = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>|\"reason\": ?\"(\w+)\"")
_REGION = re.compile(r"expecting '([a-z0-9-]+)'|<Region>([a-z0-9-]+)</Region>")
_URLS = re.compile(r"https?://\S+")
_NO_BUCKET = re.compile(
    r"NoSuchBucket|ContainerNotFound|The specified bucket does not exist|InvalidBucketName"
)
_REFUSED = frozenset({
    "AuthenticationFailed", "ExpiredToken", "InvalidAccessKeyId", "InvalidToken",
    "SignatureDoesNotMatch", "TokenRefreshRequired", "InvalidAuthenticationInfo",
})  # fmt: skip
_ELSEWHERE = frozenset({
    "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect",
    "TemporaryRedirect",
})  # fmt: skip


@dataclass(frozen=True)
class Where:
    """Whom was asked: for messages. ``server`` is an address, or the provider's name.

    ``setting`` and ``endpoint`` are the keys of ctflow.yaml that name the bucket and its server.
    """

    url: StoreUrl
    server: str
    region: str = ""
    setting: str = "store.models"
    endpoint: str = "store.endpoint"


def status_of(error: BaseException) -> int:
    """The HTTP status that a server answered with; 0 where it did not answer."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else 0


def broke_off(error: BaseException) -> bool:
    """Whether an answer began and did not end."""
    return status_of(error) == 0 and bool(re.search(r"kind: (Interrupted|Decode|Body)", str(error)))


def translated(error: BaseException, where: Where, doing: str) -> OutsideError:
    """The error to raise instead of the library's.

    Args:
        doing: what failed, such as ``write manifests/...``.
    """
    text = str(error).partition("Debug source:")[0]
    status = status_of(error)
    code = next((one for groups in _CODE.findall(text) for one in groups if one), "")
    bucket = f"the bucket {where.url.bucket!r} at {where.server}"
    if "token request" in text:  # not the store answered, but who gives out credentials
        said = f"status {status}" if status else "no answer"
        return OutsideError(
            f"no credentials could be had for {where.url}",
            cause=f"asked for a token: {said}",
            next=f"check {WHO[where.url.scheme]}",
        )
    if _NO_BUCKET.search(text):
        return OutsideError(
            f"there is no bucket {where.url.bucket!r} at {where.server}",
            next=f"create it, or correct {where.url.scheme}:// in {where.setting}",
        )
    if code in _ELSEWHERE or status in {301, 307} or "redirect without LOCATION" in text:
        return _elsewhere(bucket, text, where)
    if code in _REFUSED or status == 401:
        return OutsideError(
            f"{where.server} refuses the credentials for {where.url}",
            cause=code or f"status {status}",
            next=f"check {WHO[where.url.scheme]}",
        )
    if status == 403:
        return OutsideError(
            f"{bucket} does not allow to {doing}",
            cause=code,
            next=f"give these credentials the right to list, read and write below {where.url}",
        )
    if status >= 500 or status == 429 or code == "SlowDown":
        return OutsideError(
            f"{bucket} answered {status or code} each time it was asked to {doing}",
            next="try again later: what is there already is not sent again",
        )
    if status:
        said = f"status {status}" + (f" {code}" if code else "")
        return OutsideError(f"{bucket} did not {doing}", cause=said, next="see the server's log")
    return _unreached(str(error), text, where, doing)


def _elsewhere(bucket: str, text: str, where: Where) -> OutsideError:
    region = _REGION.search(text)
    right = next((one for one in region.groups() if one), "") if region else ""
    asked = f" than {where.region}" if where.region and where.region != right else ""
    return OutsideError(
        f"{bucket} is in another region{asked}",
        next=f"set AWS_REGION to {right}" if right else "set AWS_REGION to the bucket's region",
    )


def _unreached(whole: str, text: str, where: Where, doing: str) -> OutsideError:
    """Of an error without a status: no answer came, or not all of it."""
    if re.search(r"certificate|UnknownIssuer", whole):
        return OutsideError(
            f"the certificate of {where.server} is not trusted",
            next="let this machine trust its authority, or correct the address",
        )
    if re.search(r"dns error|failed to lookup address", whole):
        return OutsideError(
            f"there is no host of the name in {where.server}",
            next="check the network and the address",
        )
    if re.search(r"\bConnect\b|tcp connect error", whole):
        return OutsideError(
            f"{where.server} cannot be reached",
            cause="Connection refused" if "ConnectionRefused" in whole else "no connection",
            next=f"check the network, and {where.endpoint} or AWS_ENDPOINT_URL",
        )
    if re.search(r"allow_http|URL scheme is not allowed|BadScheme", whole):
        return OutsideError(
            f"{where.server} is not reached without TLS",
            next=f"write the address with http:// in {where.endpoint}, if this is intended",
        )
    if re.search(
        r"Timeout|TimedOut|Incomplete|Body|Decode|Interrupted|ConnectionReset|BrokenPipe", whole
    ):
        return OutsideError(
            f"the connection to {where.server} broke each time it was asked to {doing}",
            next="try again: what is there already is not sent again",
        )
    said = " ".join(_URLS.sub("...", text).split())
    plain = "".join(c if c.isprintable() else " " for c in said)[:200]
    return OutsideError(f"cannot {doing} in {where.url}", cause=plain, next="try again with -v")
