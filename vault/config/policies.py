"""Reads the rules of access: the operator's own files beside the data, else those shipped."""

from importlib.resources import files
from pathlib import Path

from vault.config.settings import Config
from vault.domain.decision import Rules
from vault.domain.placement import parse_placements, parse_transfers
from vault.domain.purposes import parse_purposes
from vault.domain.retention import parse_policy


def read_rules(home: Path) -> Rules:
    """Read and check them; raises `ConfigurationError` naming the row that is wrong."""
    return Rules(
        purposes=parse_purposes(_text(home, "purposes.toml")),
        transfers=parse_transfers(_text(home, "transfers.toml")),
        placements=parse_placements(_text(home, "placement.toml")),
    )


def load_policy(config: Config) -> str:
    """
    Return the text of the retention policy that is the operator's own, else of the one shipped.

    Raises `ConfigurationError` naming the row that is wrong.
    """
    text = _text(config.home, "retention.toml")
    parse_policy(text)
    return text


def _text(home: Path, name: str) -> str:
    own, shipped = home / name, files("vault") / "policy" / name
    return (own if own.exists() else shipped).read_text(encoding="utf-8")
