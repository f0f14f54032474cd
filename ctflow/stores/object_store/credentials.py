"""Who asks an object store: what the environment, or the provider's own files, say.

The library reads the variables, web identities, container credentials and the instance's own. Two
things are added here: the profile in AWS's shared files, which it does not read, and a quick answer
where there is nothing, for it would wait for an instance's metadata on every laptop.
"""

from __future__ import annotations

import configparser
import socket
from collections.abc import Mapping
from pathlib import Path

from ctflow.errors import OutsideError
from ctflow.lib.secrets import KNOWN
from ctflow.model.store_url import StoreUrl
from ctflow.stores.object_store.faults import WHO

#: Any of these says who asks; the library reads them.
_SAID = {
    "s3": (
        "AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    ),
    "gs": (
        "GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_KEY",
        "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_BEARER_TOKEN",
    ),
    "az": (
        "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY",
        "AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN",
        "AZURE_CLIENT_SECRET", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE",
        "AZURE_USE_AZURE_CLI", "AZURE_STORAGE_USE_EMULATOR", "AZURE_SKIP_SIGNATURE",
        "AZURE_IDENTITY_ENDPOINT", "AZURE_MSI_ENDPOINT",
    ),
}  # fmt: skip
#: Those that are secrets by what they hold, and are not taken for such by their names.
_SECRET = ("AZURE_STORAGE_SAS_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_MASTER_KEY")
#: Keys of a profile that say where credentials come from, in ways that AWS's tools know.
_FOR_AWS_TOOLS = ("credential_process", "role_arn", "sso_session", "sso_start_url")
_OLD_REGION = "AWS_DEFAULT_REGION"
#: Where every large cloud tells its machines who they are.
_METADATA = ("169.254.169.254", 80)


def who_asks(url: StoreUrl, environ: Mapping[str, str]) -> dict[str, str]:
    """What the library is given beyond what it reads by itself: an AWS profile's key and region.

    Raises:
        OutsideError: nothing says who asks, or it is said in a way that only AWS's tools read.
    """
    KNOWN.learn(environ)
    KNOWN.add(*(environ[name] for name in _SECRET if name in environ))
    profile = _profile(environ) if url.scheme == "s3" else {}
    found: dict[str, str] = {}
    if profile.get("region") and not (environ.get("AWS_REGION") or environ.get(_OLD_REGION)):
        found["region"] = profile["region"]
    if any(environ.get(name) for name in _SAID[url.scheme]):
        return found
    if key := _key(profile, environ):
        return found | key
    if url.scheme == "gs" and _home(environ, ".config/gcloud/application_default_credentials.json"):
        return found
    off = {"s3": "AWS_EC2_METADATA_DISABLED", "gs": "NO_GCE_CHECK"}.get(url.scheme, "")
    if environ.get(off, "").lower() != "true" and _has_metadata():
        return found
    raise OutsideError(
        f"there are no credentials for {url}",
        cause="none are in the environment",
        next=f"set {WHO[url.scheme]}",
    )


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """What AWS's shared files say of the profile; the credentials file outranks the other."""
    name = _profile_name(environ)
    files = (
        (environ.get("AWS_CONFIG_FILE"), ".aws/config",
         name if name == "default" else f"profile {name}"),
        (environ.get("AWS_SHARED_CREDENTIALS_FILE"), ".aws/credentials", name),
    )  # fmt: skip
    said: dict[str, str] = {}
    for given, usual, section in files:
        said |= _section(Path(given).expanduser() if given else _home(environ, usual), section)
    return said


def _profile_name(environ: Mapping[str, str]) -> str:
    return environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"


def _key(profile: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    key = {name.removeprefix("aws_"): profile[name] for name in names if profile.get(name)}
    if "access_key_id" in key and "secret_access_key" in key:
        KNOWN.add(key["secret_access_key"], key.get("session_token", ""))
        return key
    if environ.get("AWS_PROFILE") or any(one in profile for one in _FOR_AWS_TOOLS):
        name = _profile_name(environ)
        raise OutsideError(
            f"the AWS profile {name!r} holds no access key",
            cause="single sign-on, roles and credential programs are the AWS command line's",
            next=f'run `eval "$(aws configure export-credentials --profile {name} --format env)"`',
        )
    return {}


def _section(place: Path | None, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        if place is None or not parser.read(place, encoding="utf-8"):
            return {}
    except (configparser.Error, UnicodeDecodeError):
        raise OutsideError(
            f"{place} is not such a file as AWS's tools write", next="correct it"
        ) from None
    return dict(parser[name]) if parser.has_section(name) else {}


def _home(environ: Mapping[str, str], path: str) -> Path | None:
    place = Path(environ.get("HOME") or Path.home()) / path
    return place if place.is_file() else None


def _has_metadata() -> bool:
    """Whether this is a cloud's machine; asked once, for a second."""
    try:
        socket.create_connection(_METADATA, timeout=1.0).close()
    except OSError:
        return False
    return True
