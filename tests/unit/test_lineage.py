"""Whose hands a credential is in: one rule, over generated families of credentials."""

from hypothesis import given
from hypothesis import strategies as st

from vault.domain.credentials import Lineage, Link, Relation, relation, same_person

NAMES = st.sampled_from([f"token:{n}" for n in range(6)] + ["person:p", "person:q", "operator:a/b"])
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
def test_only_a_name_makes_two_of_one(
    one: str, other: str, lineage: Lineage, more: frozenset[Link]
) -> None:
    """Whoever is one person by some facts is so by those and others, unless both are named now."""
    grown = Lineage(lineage.links | more, lineage.strangers)
    before, after = relation(one, other, lineage), relation(one, other, grown)
    if before is not None and after is None:
        assert before is Relation.MAKER
        assert grown.is_named(one)
        assert grown.is_named(other)


@given(NAMES, NAMES, LINEAGES)
def test_who_has_a_maker_in_common_is_one_unless_two_are_named(
    one: str, other: str, lineage: Lineage
) -> None:
    """Nobody who shares a maker is two without two names."""
    if lineage.origins(one) & lineage.origins(other) and not same_person(one, other, lineage):
        ours, theirs = lineage.holders(one), lineage.holders(other)
        assert {name for name in ours if name.startswith("person:")}
        assert {name for name in theirs if name.startswith("person:")}
        assert not ours & theirs


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


def test_two_tokens_that_an_operator_made_are_two_people_by_two_names_only() -> None:
    """Whoever made two tokens that do not name two people may hold both."""
    both = frozenset({made("token:1", "operator:a"), made("token:2", "operator:a")})
    first, second = held("token:1", "person:p"), held("token:2", "person:q")
    for links in (both, both | {first}, both | {second}):
        assert relation("token:1", "token:2", Lineage(links)) is Relation.MAKER
    named = Lineage(both | {first, second})
    assert not same_person("token:1", "token:2", named)
    for token in ("token:1", "token:2"):
        assert relation(token, "operator:a", named) is Relation.HANDS
    same = Lineage(both | {first, held("token:2", "person:p")})
    assert relation("token:1", "token:2", same) is Relation.HANDS


def test_an_envelope_names_all_who_had_it_in_their_hands() -> None:
    """Sealed by somebody named and opened by a token that is nobody's, it is not named."""
    links = {held("token:1", "break-glass:1"), held("break-glass:1", "person:p")}
    assert Lineage(frozenset(links)).is_named("token:1")
    links |= {held("break-glass:1", "token:a"), made("token:a", "operator:a")}
    links |= {made("token:b", "operator:a"), held("token:b", "person:q")}
    assert relation("token:1", "token:b", Lineage(frozenset(links))) is Relation.MAKER
    links |= {held("token:a", "person:r")}
    assert not same_person("token:1", "token:b", Lineage(frozenset(links)))


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
