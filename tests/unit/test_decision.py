"""
The decision over every combination of who, what, why, where and in which state.

The combinations are generated; what is checked are rules that hold over all of them, not copies of
the code. `ALLOWED_CASES` is what the vault lets happen, whole.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import NamedTuple

import pytest

from vault.config.policies import read_rules
from vault.domain.access import (
    ALLOWED,
    APPROVED_ONLY,
    BY_KIND,
    CONTENT,
    OPENING,
    PURPOSED,
    READERS,
    REGIONAL,
    WORKER_ROLE,
    Action,
    Principal,
    Purpose,
    Role,
)
from vault.domain.decision import (
    HIDDEN,
    Circumstances,
    Decision,
    Reason,
    Relation,
    decide,
    relation_of,
    sees_names,
)
from vault.domain.documents import Custody
from vault.domain.text import is_reference

#: What all of them look at takes long to reckon, and each worker would.
pytestmark = pytest.mark.xdist_group("decision")

RULES = read_rules(Path("/nowhere"))
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ROLES = (*Role, WORKER_ROLE)
OWN_REGION = "uk"


class Case(NamedTuple):
    """One combination."""

    role: str
    action: Action
    purpose: str | None
    region: str | None
    custody: Custody | None
    relation: Relation
    restricted: bool
    approved: bool
    kind: str
    reference: str | None
    to: str


def cases() -> Iterator[Case]:
    """Yield every combination."""
    for values in product(
        ROLES,
        Action,
        [*Purpose, "curiosity", None],
        [OWN_REGION, "sg", None],
        [*Custody, None],
        Relation,
        [False, True],
        [False, True],
        ["passport", "fax"],
        ["T-1", None],
        [OWN_REGION, "us", "hk"],
    ):
        # What is no content has no purpose, custody, kind or reference, and what one may not know
        # of has no custody: one of each is enough.
        case = Case(*values)
        known = case.region == OWN_REGION and case.relation is not Relation.OTHER
        if (case.action in PURPOSED and (known or case.custody is Custody.STORED)) or (
            case.purpose is None
            and case.custody is Custody.STORED
            and case.reference is None
            and case.kind == "passport"
        ):
            yield case


def circumstances(case: Case) -> Circumstances:
    """Return the circumstances of a combination."""
    return Circumstances(
        region=case.region,
        at=NOW,
        kind=case.kind,
        relation=case.relation,
        custody=case.custody,
        restricted=case.restricted,
        purpose=case.purpose,
        reference=case.reference,
        approved=case.approved,
        to=case.to,
    )


def decision(case: Case) -> Decision:
    """Decide a combination, for a principal of one region."""
    principal = Principal("token:x", case.role, frozenset({OWN_REGION}))
    return decide(RULES, principal, case.action, circumstances(case))


@pytest.fixture(scope="module")
def decided() -> list[tuple[Case, Decision]]:
    """Decide every combination, once."""
    return [(case, decision(case)) for case in cases()]


@pytest.fixture(scope="module")
def allowed(decided: list[tuple[Case, Decision]]) -> list[Case]:
    """Give the combinations that are allowed."""
    return [case for case, made in decided if made.allow]


@pytest.fixture(scope="module")
def reads(allowed: list[Case]) -> list[Case]:
    """Give the allowed combinations that hand out content."""
    found = [case for case in allowed if case.action in CONTENT]
    assert found
    return found


ADMINISTRATION = {
    action
    for action in Action
    if action.value.partition(".")[0] in {"log", "token", "keys"} and action.value != "log.prove"
}


def test_nobody_both_reads_content_and_administers() -> None:
    """No role reads content, alone or with approval, and also sees the log, tokens or keys."""
    for role in Role:
        able = ALLOWED[role] | APPROVED_ONLY.get(role, frozenset())
        assert not (able & CONTENT and able & ADMINISTRATION), role


def test_compliance_and_the_administrator_never_get_content(reads: list[Case]) -> None:
    """There is no combination at all in which they read, or see a name."""
    assert not {case.role for case in reads} & {Role.COMPLIANCE, Role.ADMIN}
    assert {role for role, able in ALLOWED.items() if able & CONTENT} <= READERS
    assert not READERS & {Role.COMPLIANCE, Role.ADMIN, Role.DPO}


def test_the_fax_gateway_sees_nothing_but_faxes(allowed: list[Case]) -> None:
    """Whatever it is allowed is a fax, and it opens no order."""
    able = ALLOWED[Role.FAX_GATEWAY]
    assert not [a for a in able if a.value.partition(".")[0] in {"document", "order"}]
    assert {c.kind for c in allowed if c.role == Role.FAX_GATEWAY and c.action in CONTENT} <= {
        "fax"
    }


def test_content_is_read_by_who_may_for_what_it_is_for(reads: list[Case]) -> None:
    """Every allowed read has a purpose of its role that opens its kind, with its reference."""
    for case in reads:
        rule = RULES.purposes[case.purpose or ""]
        assert case.role in rule.roles
        assert case.kind in rule.kinds
        assert case.reference or not rule.reference
        assert case.approved or not rule.approval


def test_content_is_read_only_where_it_is_known_there_and_free(reads: list[Case]) -> None:
    """Every allowed read is of a stored thing, of one's own region and customers."""
    for case in reads:
        assert (case.region, case.custody) == (OWN_REGION, Custody.STORED)
        assert case.relation is not Relation.OTHER
        assert not case.restricted or RULES.purposes[case.purpose or ""].restricted


def test_full_numbers_take_a_purpose_that_opens_orders(allowed: list[Case]) -> None:
    """Only the desk reads them, for its own purposes: none that is for faxes, or approved."""
    numbers = [case for case in allowed if case.action is Action.ORDER_NUMBERS]
    assert {case.role for case in numbers} == {Role.PORTING}
    assert {case.purpose for case in numbers} == {
        "verify-identity",
        "submit-to-carrier",
        "resolve-exception",
    }
    assert {case.region for case in numbers} == {OWN_REGION}


def test_nothing_sealed_leaves_its_region_without_a_basis(
    decided: list[tuple[Case, Decision]],
) -> None:
    """What is opened goes to its own region or on a basis that the decision names, never to HK."""
    for case, made in decided:
        if made.allow and case.action in OPENING:
            assert case.to != "hk"
            assert made.basis
            assert (made.basis == "same-region") == (case.to == case.region)
        else:
            assert made.basis is None


def test_the_dpo_reads_only_what_another_agreed_to(reads: list[Case]) -> None:
    """Without an approval there is no combination in which the dpo reads."""
    theirs = [case for case in reads if case.role == Role.DPO]
    assert theirs
    assert all(case.approved and case.reference for case in theirs)


def test_a_purpose_never_widens_a_role(decided: list[tuple[Case, Decision]]) -> None:
    """What a role may not do, it may not do for any purpose, in any state, approved or not."""
    for case, made in decided:
        able = ALLOWED[case.role] | APPROVED_ONLY.get(case.role, frozenset())
        if case.action not in able:
            assert (made.allow, made.reason) == (False, Reason.ROLE)


def test_what_one_may_not_know_of_looks_like_nothing(decided: list[tuple[Case, Decision]]) -> None:
    """A thing of other regions or customers is denied as if it were not there."""
    for case, made in decided:
        hidden = case.region != OWN_REGION or case.relation is Relation.OTHER
        # What the role, the purpose and the approval say by themselves tells nothing of the thing.
        needs_approval = case.action in APPROVED_ONLY.get(case.role, frozenset())
        said = made.reason in (Reason.ROLE, Reason.APPROVAL) or (
            needs_approval and not case.approved and made.reason is Reason.REFERENCE_MISSING
        )
        if hidden and not said:
            assert made.reason in HIDDEN
            named = case.action in REGIONAL and case.region != OWN_REGION
            brought = case.action is Action.ORDER_CREATE and case.relation is Relation.OTHER
            assert (made.detail is not None) == (named or brought)
            if named:
                # The caller named the region himself, and his own are no secret to him.
                assert made.detail == "the region must be one of yours: uk"


def test_every_denial_has_its_reason(decided: list[tuple[Case, Decision]]) -> None:
    """Allowed is the reason of what is allowed and of nothing else; most denials say a sentence."""
    silent = HIDDEN | {Reason.PURPOSE_MISSING, Reason.SHREDDED}
    for _, made in decided:
        assert made.allow == (made.reason is Reason.ALLOWED)
        assert made.allow or made.detail or made.reason in silent


def test_every_reason_happens(decided: list[tuple[Case, Decision]]) -> None:
    """No reason stands there that no combination has, but those told elsewhere."""
    seen = {made.reason for _, made in decided}
    # A wrong reference, own kinds and limits are below; records are the recorder's, and
    # how streams end is told of them.
    below = {Reason.REFERENCE, Reason.KIND, Reason.LIMIT}
    assert set(Reason) - seen == {*below, Reason.RECORDS, Reason.ENDED, Reason.AGE}


READ = Circumstances(
    region="uk",
    at=NOW,
    kind="passport",
    relation=Relation.OWN,
    custody=Custody.STORED,
    purpose="verify-identity",
    to="uk",
)


@pytest.mark.parametrize("reference", ["Jane Doe", "Jane", "x" * 65, "case 7", "7\n"])
def test_a_reference_is_the_number_of_a_case(reference: str) -> None:
    """What may be a name is refused whatever else holds, for it would stand in the log."""
    desk = Principal("token:x", "porting", frozenset({"uk"}))
    case = Circumstances(**{**fields(READ), "reference": reference})
    assert decide(RULES, desk, Action.DOCUMENT_READ, case).reason is Reason.REFERENCE


def test_a_name_with_a_digit_passes_as_a_reference() -> None:
    """What the pattern cannot keep out, as attacks.md says: there it is the desk's rules."""
    assert not is_reference("John.Smith")
    assert is_reference("John.Smith1")


def test_a_limit_denies_what_would_be_allowed_and_nothing_else() -> None:
    """Whoever is past a limit is told so only of what they might have had."""
    desk = Principal("token:x", "porting", frozenset({"uk"}))
    over = {**fields(READ), "exceeded": "so many"}
    made = decide(RULES, desk, Action.DOCUMENT_READ, Circumstances(**over))
    assert (made.reason, made.detail) == (Reason.LIMIT, "so many")
    unknown = Circumstances(**{**over, "region": None})
    assert decide(RULES, desk, Action.DOCUMENT_READ, unknown).reason is Reason.UNKNOWN


def test_a_principal_of_some_kinds_knows_of_no_others() -> None:
    """A token for letters of authorisation does not know that there is a passport."""
    desk = Principal("token:x", "porting", frozenset({"uk"}), kinds=frozenset({"loa"}))
    for action in ALLOWED[Role.PORTING]:
        made = decide(RULES, desk, action, READ)
        assert made.reason is (Reason.KIND if action in BY_KIND else Reason.ROLE)
        if action not in BY_KIND:
            continue
        letter = Circumstances(**{**fields(READ), "kind": "loa"})
        assert decide(RULES, desk, action, letter).allow


def test_a_principal_of_some_customers_knows_of_no_others() -> None:
    """An order is one's own when one is for all customers or for its own, known, customer."""
    anyone = Principal("token:x", "porting", frozenset({"uk"}))
    one = Principal("token:x", "porting", frozenset({"uk"}), customers=frozenset({"acme"}))
    assert relation_of(anyone, "acme") is Relation.OWN
    assert relation_of(anyone, None) is Relation.OWN
    assert relation_of(one, "acme") is Relation.OWN
    assert relation_of(one, "other") is Relation.OTHER
    assert relation_of(one, None) is Relation.OTHER


@pytest.mark.parametrize("role", ROLES)
def test_names_are_for_who_reads(role: str) -> None:
    """A file name is shown to readers, while it may be read where they are, and to nobody else."""
    who = Principal("token:x", role, frozenset({"uk"}))
    assert sees_names(RULES, who, READ) == (role in READERS)
    for away in ({"to": "hk"}, {"restricted": True}):
        assert not sees_names(RULES, who, Circumstances(**{**fields(READ), **away}))


def fields(case: Circumstances) -> dict:
    """Return the circumstances by name."""
    return {name: getattr(case, name) for name in Circumstances.__dataclass_fields__}


def test_a_restriction_says_who_lifts_it_and_what_reads_still() -> None:
    """With the command, and each purpose that reads what is restricted."""
    who = Principal("token:x", Role.PORTING, frozenset({"uk"}))
    case = Circumstances(**{**fields(READ), "restricted": True})
    made = decide(RULES, who, Action.DOCUMENT_READ, case)
    still = [name for name, one in RULES.purposes.items() if one.restricted]
    assert made.reason is Reason.RESTRICTED
    assert all(word in (made.detail or "") for word in (*still, "dpo", "`portvault unrestrict"))


def test_nothing_is_agreed_to_unless_it_is_said() -> None:
    """What a caller leaves out is never in its favour."""
    left_out = Circumstances(OWN_REGION, NOW)
    assert not left_out.approved
    assert not left_out.restricted
    assert (left_out.custody, left_out.purpose, left_out.to) == (None, None, None)


@pytest.mark.parametrize(
    "action, named", [(Action.ORDER_CREATE, True), (Action.DOCUMENT_READ, False)]
)
def test_only_who_brings_something_is_told_the_own_kinds_and_customers(
    action: Action, named: bool
) -> None:
    """Of what is there already, a refusal says no more than that there is no such thing."""
    narrow = Principal(
        "token:1",
        Role.PORTING,
        frozenset({OWN_REGION}),
        customers=frozenset({"acme"}),
        kinds=frozenset({"loa"}),
    )
    for case, word in (
        (Circumstances(OWN_REGION, NOW, kind="passport", relation=Relation.OWN), "loa"),
        (Circumstances(OWN_REGION, NOW, kind="loa", relation=Relation.OTHER), "acme"),
    ):
        decision = decide(RULES, narrow, action, case)
        assert not decision.allow
        assert (word in (decision.detail or "")) is named
