"""Whose hands a credential is in: one rule, over generated families of credentials."""

from hypothesis import given
from hypothesis import strategies as st

from vault.domain.lineage import Lineage, Link, same_person

NAMES = st.sampled_from([f"token:{n}" for n in range(6)] + ["person:p", "operator:a/b"])
LINKS = st.frozensets(st.builds(Link, NAMES, NAMES, st.booleans()), max_size=9)
LINEAGES = st.builds(Lineage, LINKS, st.frozensets(NAMES, max_size=1))


def held(credential: str, other: str) -> Link:
    """Return that somebody holds a credential themselves."""
    return Link(credential, other, held=True)


def made(credential: str, other: str) -> Link:
    """Return that somebody made a credential for another."""
    return Link(credential, other, held=False)


@given(NAMES, NAMES, LINEAGES)
def test_it_is_the_same_from_both_sides(one: str, other: str, lineage: Lineage) -> None:
    """Everybody is themselves, and who asks and who agrees can be exchanged."""
    assert same_person(one, one, lineage)
    assert same_person(one, other, lineage) == same_person(other, one, lineage)


@given(NAMES, NAMES, LINEAGES, LINKS)
def test_what_is_learned_never_makes_two_of_one(
    one: str, other: str, lineage: Lineage, more: frozenset[Link]
) -> None:
    """Whoever is one person by some facts is so by those and any others."""
    if same_person(one, other, lineage):
        assert same_person(one, other, Lineage(lineage.links | more, lineage.strangers))


@given(NAMES, NAMES, LINEAGES)
def test_every_holder_and_maker_is_the_same_person(one: str, other: str, lineage: Lineage) -> None:
    """Through however many hands: who stands at the beginning is one with each that follows."""
    for origin in lineage.origins(one):
        assert same_person(one, origin, lineage)
    if lineage.holders(one) & lineage.holders(other):
        assert same_person(one, other, lineage)


@given(NAMES, NAMES)
def test_strangers_are_two(one: str, other: str) -> None:
    """Of whom nothing is known, nothing is said."""
    known = {one, other} >= {"operator:a/b", "operator:a"}
    assert same_person(one, other, Lineage()) == (one == other or known)


def test_two_tokens_that_an_operator_made_are_two_people() -> None:
    """Who hands tokens out makes nobody one; who holds both is one."""
    both = {made("token:1", "operator:a"), made("token:2", "operator:a")}
    assert not same_person("token:1", "token:2", Lineage(frozenset(both)))
    assert same_person("token:1", "operator:a", Lineage(frozenset(both)))
    one = {held("token:1", "person:p"), held("token:2", "person:p")}
    assert same_person("token:1", "token:2", Lineage(frozenset(both | one)))


def test_two_envelopes_of_one_sealer_are_one_person() -> None:
    """Whoever sealed them knows what is in both."""
    sealed = {
        *(held("token:1", "break-glass:1"), held("token:2", "break-glass:2")),
        *(held("break-glass:1", "token:a"), held("break-glass:2", "token:a")),
    }
    assert same_person("token:1", "token:2", Lineage(frozenset(sealed)))
    assert not same_person("token:1", "token:b", Lineage(frozenset(sealed)))


def test_an_envelope_that_nobody_knows_who_opened_is_anybodys() -> None:
    """Its token is told from no other."""
    opened = Lineage(frozenset({held("token:1", "break-glass:1")}), frozenset({"break-glass:1"}))
    assert same_person("token:1", "token:b", opened)
    assert not same_person("token:a", "token:b", opened)


def test_an_account_that_was_logged_in_to_as_another_is_both() -> None:
    """Who logged in as alice and acts as root is alice, and has root's hands."""
    for account in ("operator:root", "operator:alice"):
        assert same_person("operator:root/alice", account, Lineage())
    assert not same_person("operator:root/alice", "operator:bob", Lineage())
