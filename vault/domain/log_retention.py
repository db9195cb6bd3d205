"""
How long the log keeps what its records say: policy as data, with a floor that no row undercuts.

The floor stands in the database, too (`log_floor`), where no policy reaches it.
"""

import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta

from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError

FLOOR = timedelta(days=731)
FOR_EVER = "for ever"
_DAYS = re.compile(r"P([1-9][0-9]{0,5})D")

#: None: for ever.
LogPolicy = Mapping[str, timedelta | None]


def parse_log_policy(text: str) -> LogPolicy:
    """Return how long each region's log is kept; raises `ConfigurationError` naming the row."""
    try:
        rows = tomllib.loads(text)["rows"]
    except (ValueError, KeyError, RecursionError) as error:
        raise ConfigurationError(f"the log's retention cannot be read: {error}") from error
    policy: dict[str, timedelta | None] = {}
    for position, row in enumerate(rows, start=1):
        name = f"log retention row {position}"
        if set(row) != {"regions", "keep", "citation"} or not str(row["citation"]).strip():
            raise ConfigurationError(f"{name} must have regions, keep and citation")
        for region in row["regions"]:
            if region not in REGIONS or region in policy:
                raise ConfigurationError(f"{name} names {region}, unknown or named before")
            policy[region] = _parse_keep(name, row["keep"])
    if missing := set(REGIONS) - set(policy):
        raise ConfigurationError(f"the log's retention has no row for {', '.join(sorted(missing))}")
    return policy


def _parse_keep(name: str, value: object) -> timedelta | None:
    if value == FOR_EVER:
        return None
    match = _DAYS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ConfigurationError(f'{name}: write how long as "P2557D", or "{FOR_EVER}"')
    keep = timedelta(days=int(match[1]))
    if keep < FLOOR:
        raise ConfigurationError(f"{name}: the log is kept {FLOOR.days} days at least")
    return keep
