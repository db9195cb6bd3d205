"""Where signals go: `[webhook.NAME]` in portvault.toml."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from keys.ground.secret_files import ExposedError, read_owner_only
from vault.domain.signals import Signal
from vault.errors import ConfigurationError

_NAMES = {"url", "secret_file", "allow_private", "types"}


@dataclass(frozen=True, slots=True)
class Webhook:
    """One endpoint: its address and secret, and whether it may be in a private network."""

    url: str
    secret: str = field(repr=False)
    allow_private: bool = False
    #: Which types of signals it gets; none named means all.
    types: tuple[str, ...] = ()
    #: Where the secret lies.
    secret_file: str = ""


def deliveries(
    signals: Sequence[Signal], webhooks: Mapping[str, Webhook]
) -> list[tuple[UUID, str]]:
    """Return which signal goes to which endpoint, by name."""
    return [
        (signal.id, name)
        for signal in signals
        for name, webhook in webhooks.items()
        if not webhook.types or signal.type in webhook.types
    ]


def parse_webhooks(tables: Mapping[str, Any]) -> dict[str, Webhook]:
    """Return the endpoints by name; raises `ConfigurationError` that names what is wrong."""
    return {name: _parse(f"[webhook.{name}]", table) for name, table in tables.items()}


def _parse(where: str, table: Any) -> Webhook:
    if not isinstance(table, dict) or not {"url", "secret_file"} <= set(table) <= _NAMES:
        raise ConfigurationError(f"{where} has url, secret_file, and maybe allow_private and types")
    url, allowed = str(table["url"]), table.get("allow_private", False) is True
    try:
        parts = urlsplit(url)
        known = parts.hostname is not None and parts.username is None and parts.port != 0
    except ValueError:
        known, parts = False, urlsplit("")
    if not known or parts.scheme not in ({"https", "http"} if allowed else {"https"}):
        raise ConfigurationError(
            f"{where}: url must be https://HOST/…; http is for allow_private only"
        )
    try:
        secret = read_owner_only(Path(table["secret_file"]))
    except ExposedError as error:
        raise ConfigurationError(f"{where}: {error}") from None
    except (OSError, ValueError):
        raise ConfigurationError(f"{where}: the secret_file cannot be read") from None
    if len(secret) < 24:
        raise ConfigurationError(f"{where}: the secret must have 24 characters or more")
    types = tuple(map(str, table.get("types", ())))
    return Webhook(url, secret, allowed, types, secret_file=str(table["secret_file"]))
