"""
Lineage: which credentials are in the hands of one person, for every act that takes somebody else.

Pure. A credential is a token, an envelope, a session's person or the account of an operator, by the
id under which it stands in the log. It belongs to whoever *holds* it: who sealed an envelope knows
its secret, so does who opened it, and a token may name its person. Who *made* a token and handed it
on is the same person as the token. Two tokens of one maker are one person, too, unless each names
its person and they name different ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from vault.domain.people import OPERATOR, PERSON


class Relation(StrEnum):
    """Why two credentials are, or cannot be told from, one person's."""

    #: One of them is in the hands of the other, or was made by it, or may be anybody's.
    HANDS = "hands"
    #: One operator made both, and they do not name two people.
    MAKER = "maker"


@dataclass(frozen=True, slots=True)
class Link:
    """That `other` holds a credential itself, or, where it does not, made it for somebody."""

    credential: str
    other: str
    held: bool


@dataclass(frozen=True, slots=True)
class Lineage:
    """All links of the credentials in question, and those that may be in anybody's hands."""

    links: frozenset[Link] = frozenset()
    #: Envelopes that were opened, and tokens that were made, by nobody knows whom.
    strangers: frozenset[str] = frozenset()

    def holders(self, credential: str) -> frozenset[str]:
        """Return the credential and all that are in the same hands for certain."""
        return self._closure(credential, held_only=True)

    def origins(self, credential: str) -> frozenset[str]:
        """Return the credential, its holders and makers, their makers, and so on."""
        return self._closure(credential, held_only=False)

    def is_named(self, credential: str) -> bool:
        """Whether it is a person's who is named, and in nobody else's hands that is known."""
        ends = [one for one in self.holders(credential) if not self._held_by(one)]
        return all(one.startswith(PERSON) for one in ends)

    def _held_by(self, credential: str) -> list[str]:
        return [link.other for link in self.links if link.credential == credential and link.held]

    def _closure(self, credential: str, *, held_only: bool) -> frozenset[str]:
        found, waiting = {credential}, [credential]
        while waiting:
            known = waiting.pop()
            fresh = set(self._known_to(known, held_only=held_only)) - found
            found |= fresh
            waiting.extend(fresh)
        return frozenset(found)

    def _known_to(self, credential: str, *, held_only: bool) -> Iterator[str]:
        account, _, login = credential.removeprefix(OPERATOR).partition("/")
        if credential.startswith(OPERATOR) and login:
            # Somebody who logged in as one account and acts as another is both.
            yield OPERATOR + account
            yield OPERATOR + login
        for link in self.links:
            if link.credential == credential and (link.held or not held_only):
                yield link.other


def relation(one: str, other: str, lineage: Lineage) -> Relation | None:
    """
    Return why two principals are, or cannot be told from, one person; None when they are two.

    A token of an envelope that was opened by nobody knows whom is told from nobody. Whoever made
    a token is the same person as the token even where it names another.
    """
    ours, theirs = lineage.holders(one), lineage.holders(other)
    if (ours | theirs) & lineage.strangers:
        return Relation.HANDS
    makers, others = lineage.origins(one), lineage.origins(other)
    if makers & theirs or ours & others:
        return Relation.HANDS
    if makers & others and not (lineage.is_named(one) and lineage.is_named(other)):
        return Relation.MAKER
    return None


def same_person(one: str, other: str, lineage: Lineage) -> bool:
    """Whether two principals are, or cannot be told from, one person."""
    return relation(one, other, lineage) is not None
