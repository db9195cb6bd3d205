"""Reads the rules of access: the operator's own files beside the data, else those shipped."""

from importlib.resources import files
from pathlib import Path

from vault.domain.decision import Rules
from vault.domain.placement import parse_placements, parse_transfers
from vault.domain.purposes import parse_purposes


def read_rules(home: Path) -> Rules:
    """Read and check them; raises `ConfigurationError` naming the row that is wrong."""
    return Rules(
        purposes=parse_purposes(_text(home, "purposes.toml")),
        transfers=parse_transfers(_text(home, "transfers.toml")),
        placements=parse_placements(_text(home, "placement.toml")),
    )


def _text(home: Path, name: str) -> str:
    own, shipped = home / name, files("vault") / "policy" / name
    return (own if own.exists() else shipped).read_text(encoding="utf-8")
