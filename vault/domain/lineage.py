"""
Lineage: which credentials are in the hands of one person, for every act that takes somebody else.

Pure. A credential is a token, an envelope, a session's person or the account of an operator, by the
id under which it stands in the log. It belongs to whoever *holds* it: who sealed an envelope knows
its secret, so does who opened it, and a token may name its person. Who *made* a token and handed it
on is the same person as the token, but two tokens that one operator made for two people are not.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from vault.domain.people import OPERATOR


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
    #: Envelopes that were opened by nobody knows whom.
    strangers: frozenset[str] = frozenset()

    def holders(self, credential: str) -> frozenset[str]:
        """Return the credential and all that are in the same hands for certain."""
        return self._closure(credential, held_only=True)

    def origins(self, credential: str) -> frozenset[str]:
        """Return the credential, its holders and makers, their makers, and so on."""
        return self._closure(credential, held_only=False)

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


def same_person(one: str, other: str, lineage: Lineage) -> bool:
    """
    Whether two principals are, or cannot be told from, one person.

    A token of an envelope that was opened by nobody knows whom is told from nobody.
    """
    ours, theirs = lineage.holders(one), lineage.holders(other)
    if (ours | theirs) & lineage.strangers:
        return True
    return bool(lineage.origins(one) & theirs or ours & lineage.origins(other))
