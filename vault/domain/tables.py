"""Policy comes as tables of rows, in TOML."""

import tomllib
from typing import Any

from vault.errors import ConfigurationError


def read_rows(text: str, name: str) -> list[dict[str, Any]]:
    """Return the rows of the table `name`; raises `ConfigurationError` where there is none."""
    try:
        rows = tomllib.loads(text).get(name)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the {name} cannot be read: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError(f"the {name} have no rows; write each as [[{name}]]")
    return rows
