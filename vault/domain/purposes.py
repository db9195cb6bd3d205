"""
Purposes as data: why content may be read, who may say so, and what it opens.

A file that would let a role read that reads nothing, or let the dpo read alone, is refused with the
row's name; so no purpose can widen a role.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from vault.domain.access import APPROVED_ONLY, READERS, WORKER_ROLE, Purpose, Role
from vault.domain.documents import FAX, Kind
from vault.domain.text import read_rows
from vault.errors import ConfigurationError

KINDS = frozenset({*Kind, FAX})
_FIELDS = {
    "name": str,
    "roles": list,
    "reference": str,
    "approval": bool,
    "restricted": bool,
    "kinds": list,
    "why": str,
}


@dataclass(frozen=True, slots=True)
class PurposeRule:
    """Who may state a purpose, what has to go with it, and which kinds it opens."""

    name: Purpose
    roles: frozenset[str]
    #: What the reference has to name; empty when none is needed.
    reference: str
    approval: bool
    restricted: bool
    kinds: frozenset[str]
    why: str


#: By the purpose's name.
Purposes = dict[str, PurposeRule]


def stated_by(purposes: Purposes, role: str) -> list[str]:
    """Return the purposes that a role may state."""
    return sorted(rule.name.value for rule in purposes.values() if role in rule.roles)


def parse_purposes(text: str) -> Purposes:
    """Return the rule of each purpose; raises `ConfigurationError` naming the row."""
    found: Purposes = {}
    for position, row in enumerate(read_rows(text, "purposes"), start=1):
        rule = _parse_row(f"purpose {position}", row)
        if rule.name in found:
            raise ConfigurationError(f"purpose {position} is {rule.name} again")
        found[rule.name] = rule
    return found


def _parse_row(place: str, row: dict[str, Any]) -> PurposeRule:
    if set(row) != set(_FIELDS) or any(type(row[name]) is not _FIELDS[name] for name in row):
        raise ConfigurationError(f"{place} must have exactly {', '.join(sorted(_FIELDS))}")
    if row["name"] not in list(Purpose):
        raise ConfigurationError(f"{place} must be one of {', '.join(Purpose)}")
    place = f"{place} ({row['name']})"
    rule = PurposeRule(
        name=Purpose(row["name"]),
        roles=_words(place, row["roles"], {*Role, WORKER_ROLE}),
        reference=row["reference"].strip(),
        approval=row["approval"],
        restricted=row["restricted"],
        kinds=_words(place, row["kinds"], KINDS),
        why=row["why"].strip(),
    )
    if not rule.why:
        raise ConfigurationError(f"{place} must say why")
    _check_roles(place, rule)
    return rule


def _check_roles(place: str, rule: PurposeRule) -> None:
    for role in sorted(rule.roles):
        if role not in READERS and role not in APPROVED_ONLY:
            raise ConfigurationError(f"{place}: {role} never reads content")
        if role in APPROVED_ONLY and not rule.approval:
            raise ConfigurationError(f"{place}: {role} reads content only with approval = true")
    if Role.FAX_GATEWAY in rule.roles and rule.kinds != {FAX}:
        raise ConfigurationError(f"{place}: the fax gateway sees nothing but faxes")


def _words(place: str, value: list[Any], known: Collection[str]) -> frozenset[str]:
    strange = [word for word in value if word not in known]
    if strange or not value:
        raise ConfigurationError(f"{place} names {strange or 'nothing'}; known: {sorted(known)}")
    return frozenset(value)
