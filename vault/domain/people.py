"""
People: from what the identity provider says of somebody to a principal.

Pure. The groups of a person mean roles and regions by a mapping of the operator. Whoever has no
role has none here either, and whoever has two has to be given one: a vault in which somebody both
reads and administers is what the roles are there to prevent.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vault.domain.access import Principal, Role
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError, ForbiddenError, InvalidRequestError

NAME_LENGTH_MAX = 80
#: How the console calls whom the identity provider gives no name.
NAMELESS = "you"
#: As OpenID Connect bounds a subject.
SUBJECT_LENGTH_MAX = 255
#: What the id of an operator on the machine begins with, and that of a person.
OPERATOR = "operator:"
PERSON = "person:"
PERSON_PATTERN = re.compile(r"person:[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class GroupMapping:
    """What each group of the identity provider means here."""

    claim: str
    roles: Mapping[str, str]
    regions: Mapping[str, str]
    located: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Person:
    """Who signed in: the principal, and how the console calls them."""

    principal: Principal
    shown_as: str

    @property
    def name(self) -> str | None:
        """What the person is called; None where the identity provider does not say."""
        return None if self.shown_as == NAMELESS else self.shown_as


def parse_mapping(
    claim: str, roles: Sequence[str], regions: Sequence[str], located: Sequence[str]
) -> GroupMapping:
    """Return the mapping of `GROUP=MEANING` pairs; raises `ConfigurationError`."""
    return GroupMapping(
        claim,
        _pairs("oidc_roles", roles, list(Role)),
        _pairs("oidc_regions", regions, REGIONS),
        _pairs("oidc_located", located, REGIONS),
    )


def _pairs(setting: str, texts: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        group, _, meaning = text.rpartition("=")
        if not group or meaning not in known:
            raise ConfigurationError(
                f"{setting} holds {text!r}; write GROUP=MEANING, with one of {', '.join(known)}"
            )
        found[group] = meaning
    return found


def person_of(claims: Mapping[str, Any], mapping: GroupMapping) -> Person:
    """
    Return whom verified claims speak of; raises `ForbiddenError` saying what is missing.

    The principal's id is a hash: subjects are often addresses or names, and it stands in the log.
    """
    said = claims.get(mapping.claim)
    # Of one group some providers make a text instead of a list.
    listed = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    groups = [group for group in listed if isinstance(group, str)]
    roles = {mapping.roles[group] for group in groups if group in mapping.roles}
    regions = {mapping.regions[group] for group in groups if group in mapping.regions}
    located = {mapping.located[group] for group in groups if group in mapping.located}
    if not groups and _left_out(claims, mapping.claim):
        raise ForbiddenError(
            "your identity provider left your groups out because they are too many; ask who looks "
            "after it to send only the groups that are assigned to this application"
        )
    if len(roles) != 1:
        what = "has several roles here; it must be one" if roles else "has no role here"
        raise ForbiddenError(f"your account {what}; ask who looks after the vault's groups")
    if not regions:
        raise ForbiddenError("your account has no region here; ask who looks after its groups")
    if len(located) > 1:
        raise ForbiddenError("your account is in several places; ask who looks after its groups")
    principal = Principal(
        principal_id(str(claims["iss"]), str(claims["sub"])),
        roles.pop(),
        frozenset(regions),
        located=located.pop() if located else None,
    )
    return Person(principal, _shown(claims))


def _left_out(claims: Mapping[str, Any], claim: str) -> bool:
    """Whether the groups lie elsewhere: aggregated (OIDC Core, 5.6.2), or Entra's `hasgroups`."""
    names = claims.get("_claim_names")
    return claims.get("hasgroups") is True or (isinstance(names, dict) and claim in names)


def principal_id(issuer: str, subject: str) -> str:
    """Return the opaque id of a person."""
    digest = hashlib.sha256(f"{issuer}\n{subject}".encode()).hexdigest()
    return f"{PERSON}{digest[:32]}"


def named_person(issuer: str, text: str) -> str:
    """
    Return the id of the person whom an operator names as the holder of a token.

    `text` is an id as the console shows it, or the subject by which the identity provider knows the
    person; without a provider, any word that always means the same person, as a staff number.
    """
    said = text.strip()
    if PERSON_PATTERN.fullmatch(said):
        return said
    if not 1 <= len(said) <= SUBJECT_LENGTH_MAX or not said.isprintable():
        raise InvalidRequestError(
            f"person must be an id or a subject of 1 to {SUBJECT_LENGTH_MAX} printable characters"
        )
    return principal_id(issuer, said)


def _shown(claims: Mapping[str, Any]) -> str:
    for name in ("name", "preferred_username", "email"):
        text = claims.get(name)
        if isinstance(text, str) and text.strip() and text.isprintable():
            return text.strip()[:NAME_LENGTH_MAX]
    return NAMELESS


# ---- What principals were called when they acted: a token's label, a person's name, an envelope's
# role.
#
# Pure. The log holds ids alone, since nothing in it can be taken away; the names stand beside it.


@dataclass(frozen=True, slots=True)
class Name:
    """What a principal was called from a moment on, until its next name begins."""

    principal: str
    since: datetime
    name: str


#: Each field of an answer that holds a principal, with those that say when: the first one that is
#: there counts. Beside it stands what the principal was called then, under `called`.
ACTORS = {
    "requested_by": ("requested_at",),
    "approved_by": ("approved_at", "released_at"),
    "ended_by": ("ended_at",),
    "sealed_by": ("sealed_at",),
    "opened_by": ("opened_at",),
    "revoked_by": ("revoked_at",),
    "placed_by": ("placed_at",),
    "released_by": ("released_at",),
    "given_by": ("given_at",),
    "created_by": ("created_at",),
    "shred_approved_by": ("beyond_use_since",),
    #: Of a restriction.
    "by": ("since",),
    #: Whose token it is.
    "person": ("created_at",),
}


def called(field: str) -> str:
    """Return the field that holds what the principal of a field was called."""
    return f"{field}_name"


def actors_of(shown: object) -> set[str]:
    """Return the principals in an answer, however deep they stand."""
    if isinstance(shown, list):
        return {who for item in shown for who in actors_of(item)}
    if not isinstance(shown, dict):
        return set()
    found = {value for name, value in shown.items() if name in ACTORS and isinstance(value, str)}
    return found.union(*(actors_of(value) for value in shown.values()))


class Names:
    """The names of some principals, each with its time."""

    def __init__(self, names: Iterable[Name]) -> None:
        self._names = dict[str, list[Name]]()
        for name in sorted(names, key=lambda name: name.since):
            self._names.setdefault(name.principal, []).append(name)

    def beside(self, shown: Any) -> Any:
        """Return an answer in which each principal has its name of then behind it."""
        if isinstance(shown, list):
            return [self.beside(item) for item in shown]
        if not isinstance(shown, dict):
            return shown
        named = dict[str, Any]()
        for field, value in shown.items():
            named[field] = self.beside(value)
            if field in ACTORS and isinstance(value, str):
                at = next((shown[name] for name in ACTORS[field] if shown.get(name)), None)
                named[called(field)] = self.at(value, _time(at)) if at else None
        return named

    def at(self, principal: str, at: datetime) -> str | None:
        """
        Return what a principal was called at a time; None where no name is known.

        What was before its first name, as the record by which it was made, has that one.
        """
        found = self._names.get(principal)
        if not found:
            return None
        before = [name for name in found if name.since <= at]
        return (before[-1] if before else found[0]).name


def _time(at: str | datetime) -> datetime:
    return at if isinstance(at, datetime) else datetime.fromisoformat(at)
