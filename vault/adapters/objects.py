"""From the address of a bucket to its store: `dir:PATH`, `s3+https://HOST/BUCKET`."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from vault.adapters.directory import DirectoryStore
from vault.context import ObjectStore
from vault.errors import ConfigurationError

SCHEMES = "dir:PATH, s3+https://HOST[:PORT]/BUCKET or s3+http://HOST[:PORT]/BUCKET"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")


def open_store(
    uri: str,
    *,
    access_key: str,
    secret_key: str,
    region: str,
    timeout_seconds: float,
    make: bool = False,
) -> ObjectStore:
    """
    Open the store at the address.

    `make` makes a directory that is missing, which is for the first start alone: later it is a
    disk that is not mounted. Raises `ConfigurationError` for such a directory, and for an address
    that is not well formed.
    """
    scheme, found, rest = uri.partition(":")
    if found and scheme == "dir":
        if not rest:
            raise ConfigurationError("dir: needs a path, as in dir:/srv/portvault/{region}")
        return DirectoryStore(Path(rest).expanduser().absolute(), make=make)
    if scheme in {"s3+https", "s3+http"}:
        host, bucket = _place(uri)
        if not access_key or not secret_key:
            raise ConfigurationError(
                f"{scheme}: needs credentials; set PORTVAULT_S3_ACCESS_KEY and "
                "PORTVAULT_S3_SECRET_KEY_FILE"
            )
        # Loaded where it is used: it costs a command as much time as all the rest.
        from vault.adapters.s3 import S3Store
        from vault.adapters.s3_requests import Bucket

        place = Bucket(
            host=host,
            bucket=bucket,
            secure=scheme == "s3+https",
            region=region,
            access_key=access_key,
            secret_key=secret_key,
        )
        return S3Store(place, timeout_seconds=timeout_seconds)
    raise ConfigurationError(f"objects is {_shown(uri)!r}; it must be {SCHEMES}")


def _place(uri: str) -> tuple[str, str]:
    """Return host and bucket; whatever else an address may hold is refused, not ignored."""
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise ConfigurationError(f"objects has no valid host and port: {error}") from None
    if "@" in parts.netloc:
        raise ConfigurationError(
            "objects must not hold credentials; set PORTVAULT_S3_ACCESS_KEY and "
            "PORTVAULT_S3_SECRET_KEY_FILE"
        )
    bucket = parts.path.removeprefix("/").removesuffix("/")
    if not parts.hostname or parts.query or parts.fragment or not _BUCKET.fullmatch(bucket):
        raise ConfigurationError(f"objects is {uri!r}; it must be {SCHEMES}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = 443 if parts.scheme == "s3+https" else 80
    return host if port in {None, default} else f"{host}:{port}", bucket


def _shown(uri: str) -> str:
    """Return the address without what may be a password before an @."""
    return uri.partition(":")[0] + ":…" if "@" in uri else uri
