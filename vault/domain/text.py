"""What others write: tables of rules, times, spans of days, numbers of cases and telephones."""

import re
import tomllib
from datetime import UTC, datetime, timedelta
from typing import Any

from vault.errors import ConfigurationError

# ---- Policy comes as tables of rows, in TOML. ---------------------------------------------------


def read_rows(text: str, name: str) -> list[dict[str, Any]]:
    """Return the rows of the table `name`; raises `ConfigurationError` where there is none."""
    try:
        rows = tomllib.loads(text).get(name)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"the {name} cannot be read: {error}") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ConfigurationError(f"the {name} have no rows; write each as [[{name}]]")
    return rows


# ---- Times as they are said: one that the vault can reckon with, or a clear refusal. ------------

#: What was said of a time outside of these is a mistake; and the calendar's own edges, where an
#: offset or a period leads out of it, are far off.
FIRST, LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
_DAY = timedelta(days=1)


def said_time(at: datetime) -> str:
    """Return a time as every sentence and every table has it: UTC, to the second."""
    at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """
    Return a time in ISO 8601, with its offset where it has one.

    Raises ValueError for what is none, and for what lies outside of the years 1900 to 2199.
    """
    at = datetime.fromisoformat(text)
    # An offset is less than a day, so nothing is added to what is at an edge.
    if not FIRST + _DAY <= at.replace(tzinfo=UTC) <= LAST - _DAY:
        raise ValueError("a time must lie within the years 1900 to 2199")
    return at


_DAYS = re.compile(r"P([1-9][0-9]{0,5})D")


def parse_days(value: object) -> int | None:
    """Return how many days "P30D" says, 1 to 999999; None for anything else."""
    found = _DAYS.fullmatch(value) if isinstance(value, str) else None
    return int(found[1]) if found else None


# ---- The number of a case or a ticket: it stands in the access log, so it should not hold a name.

REFERENCE_LENGTH_MAX = 64
_REFERENCE = re.compile(rf"(?=.*[0-9])[A-Za-z0-9._/#-]{{1,{REFERENCE_LENGTH_MAX}}}")


def is_reference(text: str) -> bool:
    """Whether this looks like the number of a case; a name with a digit at its end does, too."""
    return _REFERENCE.fullmatch(text) is not None


# ---- A telephone number as the networks write it (E.164): plus, then 7 to 15 digits.

E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)
