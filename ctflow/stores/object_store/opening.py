"""Opens a bucket: whom to ask, with what patience, and as whom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ctflow.errors import ConfigError
from ctflow.lib.quick import dataclass
from ctflow.model.store_url import OBJECT_STORES, StoreUrl, check_endpoint
from ctflow.stores.object_store.bucket import Bucket
from ctflow.stores.object_store.credentials import who_asks
from ctflow.stores.object_store.faults import Where

#: Tries of one request. With pauses of 0.1 s that double, up to 10 s: about half a minute of 503.
_TRIES = 9
_RETRY_SECONDS = 120
#: Of one request, that is of one part: 70 kB/s is fast enough.
_REQUEST = timedelta(seconds=120)
_CONNECT = timedelta(seconds=10)


@dataclass(frozen=True)
class Access:
    """What a part of ctflow.yaml says of a bucket besides its URL.

    Attributes:
        setting: the name of the URL's key, and ``endpoint`` that of the server's address.
        key: an access key and its secret, for S3; None: the environment says who asks.
        region: S3's; empty: the environment's.
    """

    setting: str = "store.models"
    endpoint: str = "store.endpoint"
    key: tuple[str, str] | None = None
    region: str = ""


def open_bucket(
    url: StoreUrl,
    endpoint: str | None,
    environ: Mapping[str, str],
    access: Access = Access(),  # noqa: B008 (frozen)
) -> Bucket:
    """The bucket of a URL; no server is asked yet.

    Raises:
        ConfigError: the library is not here; the endpoint is no address, or the account is missing.
        OutsideError: nothing says who asks.
    """
    try:
        import obstore.store as library
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "obstore":
            raise
        raise ConfigError(
            f"{url} needs obstore, which is not here",
            next="install ctflow[object-store]: `python -m pip install 'ctflow[object-store]'`",
        ) from None
    endpoint = _endpoint(url, endpoint, environ)
    given = {} if access.key else who_asks(url, environ)
    options: dict[str, Any] = {
        "client_options": {
            "allow_http": bool(endpoint and endpoint.startswith("http://")),
            "timeout": _REQUEST,
            "connect_timeout": _CONNECT,
        },
        "retry_config": {
            "max_retries": _tries(environ) - 1,
            "retry_timeout": timedelta(seconds=_RETRY_SECONDS),
            "backoff": {"max_backoff": timedelta(seconds=10)},
        },
        "prefix": url.prefix or None,
    }
    server = endpoint or OBJECT_STORES[url.scheme]
    config: Any = {}
    where = Where(url, server, setting=access.setting, endpoint=access.endpoint)
    if url.scheme == "s3":
        region = access.region or given.get("region") or environ.get("AWS_REGION")
        region = region or environ.get("AWS_DEFAULT_REGION") or ""
        config = given | ({"endpoint": endpoint} if endpoint else {})
        if region:
            config["region"] = region
        if access.key:
            # As a provider, for a token of the environment's would be sent with the key else.
            options["credential_provider"] = _Static(*access.key)
        store = library.S3Store(url.bucket, config=config, **options)
        return Bucket(store, replace(where, region=region or "us-east-1"), str(url))
    if url.scheme == "gs":
        config = {"base_url": endpoint} if endpoint else {}
        return Bucket(library.GCSStore(url.bucket, config=config, **options), where, str(url))
    return _azure(library, url, endpoint, environ, options)


@dataclass(frozen=True)
class _Static:
    """A key that does not end, as the library wants it."""

    id: str
    secret: str

    def __call__(self) -> dict[str, Any]:
        """The credential."""
        return {
            "access_key_id": self.id, "secret_access_key": self.secret, "token": None,
            "expires_at": None,
        }  # fmt: skip


def _azure(
    library: Any, url: StoreUrl, endpoint: str | None, environ: Mapping[str, str], options: Any
) -> Bucket:
    account = environ.get("AZURE_STORAGE_ACCOUNT_NAME") or environ.get("AZURE_STORAGE_ACCOUNT")
    if not account:
        raise ConfigError(
            f"nothing says which storage account {url} is in",
            next="set AZURE_STORAGE_ACCOUNT_NAME",
        )
    config = {"account_name": account} | ({"endpoint": endpoint} if endpoint else {})
    store = library.AzureStore(url.bucket, config=config, **options)
    # KServe knows Azure by its https address only.
    below = f"{url.bucket}/{url.prefix}".rstrip("/")
    base = f"{endpoint or f'https://{account}.blob.core.windows.net'}/{below}"
    return Bucket(store, Where(url, endpoint or OBJECT_STORES["az"]), base)


def _endpoint(url: StoreUrl, given: str | None, environ: Mapping[str, str]) -> str | None:
    """The server's address: ctflow.yaml's, else the environment's, as the providers name it."""
    if given:
        return given
    names = {
        "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
        "gs": ("GOOGLE_BASE_URL", "STORAGE_EMULATOR_HOST"),
        "az": ("AZURE_STORAGE_ENDPOINT",),
    }[url.scheme]
    for name in names:
        if text := environ.get(name):
            try:
                return check_endpoint(text)
            except ValueError as error:
                raise ConfigError(f"{name}: {error}", next="correct the variable") from None
    return None


def _tries(environ: Mapping[str, str]) -> int:
    """AWS's own variable for the same thing; what is no number there counts for nothing."""
    text = environ.get("AWS_MAX_ATTEMPTS", "")
    return int(text) if text.isdecimal() and 0 < int(text) < 100 else _TRIES
