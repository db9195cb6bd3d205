"""Four eyes, over every role, act and state: who may ask, who may agree, what it is good for."""

import uuid
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vault.domain.access import ALLOWED, Action, Principal, Role
from vault.domain.approvals import (
    APPROVERS,
    DAYS_MAX,
    ENDINGS,
    REASONS,
    REQUESTERS,
    Act,
    Approval,
    State,
    Terms,
    check_approval,
    check_end,
    check_request,
    check_use,
)
from vault.domain.credentials import Lineage, Link
from vault.errors import ConflictError, ForbiddenError, InvalidRequestError, VaultError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
HOLD = str(uuid.UUID(int=1))
RELEASE = Terms(Act.HOLD_RELEASE, HOLD, "uk")
DISCLOSURE = Terms(Act.DISCLOSURE, HOLD, "uk", "disclose-to-authority", "DS-1")
#: What each act may be asked for.
TERMS = {
    Act.HOLD_RELEASE: RELEASE,
    Act.POLICY_SHORTEN: Terms(Act.POLICY_SHORTEN, "a" * 64, "uk"),
    Act.DISCLOSURE: DISCLOSURE,
    Act.BREAK_GLASS: Terms(Act.BREAK_GLASS, "dpo/sg/uk", "sg", days=30),
    Act.EXPIRY_RESUME: Terms(Act.EXPIRY_RESUME, "2026-01-01", "uk"),
    Act.MISTAKE: Terms(Act.MISTAKE, HOLD, "uk"),
    Act.CORRECT: Terms(Act.CORRECT, f"{HOLD}/passport", "uk"),
}
ASKED = Approval(uuid.UUID(int=1), RELEASE, "case-closed", "token:a", NOW, LATER)
APPROVED = replace(ASKED, approved_by="token:b", approved_at=NOW)
USED = replace(APPROVED, used_at=NOW)
DECLINED = replace(APPROVED, ended_as=State.DECLINED, ended_by="token:c", ended_at=NOW)
WITHDRAWN = replace(APPROVED, ended_as=State.WITHDRAWN, ended_by="token:a", ended_at=NOW)
OF_STATE = {
    State.REQUESTED: ASKED,
    State.APPROVED: APPROVED,
    State.USED: USED,
    State.DECLINED: DECLINED,
    State.WITHDRAWN: WITHDRAWN,
}
SERVED = ("sg", "uk")
STRANGERS = Lineage()


def agreeing(
    name: str = "token:b", role: str = "dpo", regions: Collection[str] = SERVED
) -> Principal:
    return Principal(name, role, frozenset(regions))


@pytest.mark.parametrize("act", Act)
def test_each_act_is_asked_for_and_agreed_to_by_roles_that_may(act: Act) -> None:
    """Every act has somebody who asks and somebody else who agrees, and no desk agrees."""
    assert REQUESTERS[act]
    assert APPROVERS[act]
    for role in Role:
        assert (role in REQUESTERS[act]) <= (Action.APPROVAL_REQUEST in ALLOWED[role])
        assert (role in APPROVERS[act]) <= (Action.APPROVAL_APPROVE in ALLOWED[role])
    assert not {Role.PORTING, Role.FAX_GATEWAY} & APPROVERS[act]
    # A desk asks for what its own mistakes take, and nothing else.
    assert Role.PORTING not in REQUESTERS[act] or act in (Act.MISTAKE, Act.CORRECT)


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("role", Role)
def test_no_other_role_asks_or_agrees(role: Role, act: Act) -> None:
    """A role that is not named for an act is refused, whatever else it may do."""
    asked = replace(ASKED, terms=TERMS[act])
    if role in REQUESTERS[act]:
        check_request(role, TERMS[act], "C-7")
    else:
        with pytest.raises(ForbiddenError, match="may not ask"):
            check_request(role, TERMS[act], "C-7")
    if role not in APPROVERS[act]:
        with pytest.raises(ForbiddenError, match="may not approve"):
            check_approval(asked, agreeing(role=role), SERVED, STRANGERS, NOW)
        with pytest.raises(ForbiddenError, match="may not approve"):
            check_end(asked, agreeing(role=role), State.DECLINED, NOW)


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize(
    "subject",
    ["", "Jane Doe", "John.Smith/1980-01-01", "J.Smith#1", "x" * 129, f"{HOLD}\n", HOLD + "1", "a"],
)
def test_a_subject_is_an_id(act: Act, subject: str) -> None:
    """The subject stands in the log for years, so there is no room for a name in it."""
    for role in REQUESTERS[act]:
        with pytest.raises(InvalidRequestError, match="the subject of"):
            check_request(role, replace(TERMS[act], subject=subject), "C-7")


@pytest.mark.parametrize(
    "reason", ["", " ", "J-" * 40 + "1", "a\nb", "John Smith asked 1", "smith"]
)
def test_a_reason_is_a_code(reason: str) -> None:
    """Who agrees must know why, by a case's number or a known word."""
    with pytest.raises(InvalidRequestError, match="reason"):
        check_request("dpo", RELEASE, reason)


@pytest.mark.parametrize("reason", ["C-7", "INC/2026/14", *REASONS])
def test_a_number_or_a_known_word_will_do(reason: str) -> None:
    """Each of the words that the refusal names is taken."""
    check_request("dpo", RELEASE, reason)


@pytest.mark.parametrize(
    "terms, says",
    [
        (replace(DISCLOSURE, purpose=None), "purpose"),
        (replace(DISCLOSURE, purpose="John Smith"), "purpose"),
        (replace(DISCLOSURE, reference=None), "reference"),
        (replace(DISCLOSURE, reference="John Smith"), "reference"),
        (replace(DISCLOSURE, days=3), "no days"),
        (replace(RELEASE, purpose="verify-identity"), "no purpose"),
        (replace(RELEASE, days=3), "no days"),
        (replace(TERMS[Act.BREAK_GLASS], days=None), "days"),
        (replace(TERMS[Act.BREAK_GLASS], days=0), "days"),
        (replace(TERMS[Act.BREAK_GLASS], days=DAYS_MAX + 1), "days"),
    ],
)
def test_a_request_says_all_that_it_is_bound_to(terms: Terms, says: str) -> None:
    """A disclosure says why and for which case, an envelope for how long, and no act more."""
    (role,) = REQUESTERS[terms.act]
    with pytest.raises(InvalidRequestError, match=says):
        check_request(role, terms, "C-7")
    check_request(role, TERMS[terms.act], "C-7")
    check_request("admin", replace(TERMS[Act.BREAK_GLASS], days=DAYS_MAX), "C-7")


def test_nobody_agrees_with_oneself() -> None:
    """The second pair of eyes belongs to another principal."""
    with pytest.raises(ForbiddenError, match="somebody else"):
        check_approval(ASKED, agreeing("token:a"), SERVED, STRANGERS, NOW)
    check_approval(ASKED, agreeing(), SERVED, STRANGERS, NOW)


@pytest.mark.parametrize("act", Act)
def test_no_act_takes_one_person_for_two(act: Act) -> None:
    """Related by lineage, they neither agree nor use what was agreed to before that was known."""
    related = Lineage(frozenset({Link("token:b", "token:a", held=True)}))
    asked = replace(ASKED, terms=TERMS[act])
    with pytest.raises(ForbiddenError, match="one person"):
        check_approval(asked, agreeing(), SERVED, related, NOW)
    agreed = replace(APPROVED, terms=TERMS[act])
    check_use(agreed, TERMS[act], "token:a", STRANGERS, NOW)
    with pytest.raises(ForbiddenError, match="one person"):
        check_use(agreed, TERMS[act], "token:a", related, NOW)


@pytest.mark.parametrize(
    "act, subject, regions, agreed",
    [
        (Act.HOLD_RELEASE, HOLD, {"uk"}, True),
        (Act.HOLD_RELEASE, HOLD, {"sg"}, False),
        (Act.POLICY_SHORTEN, "a" * 64, {"uk"}, False),
        (Act.POLICY_SHORTEN, "a" * 64, {"sg", "uk"}, True),
        (Act.BREAK_GLASS, "dpo/sg/uk", {"uk"}, False),
        (Act.BREAK_GLASS, "dpo/sg/uk", {"sg", "uk"}, True),
        (Act.BREAK_GLASS, "dpo/uk", {"uk"}, True),
    ],
)
def test_who_agrees_is_of_every_region_that_it_reaches(
    act: Act, subject: str, regions: set[str], agreed: bool
) -> None:
    """Nobody of the UK alone agrees to a policy, or a credential, that reaches Singapore."""
    asked = replace(ASKED, terms=Terms(act, subject, "uk"))
    if agreed:
        check_approval(asked, agreeing(regions=regions), SERVED, STRANGERS, NOW)
    else:
        with pytest.raises(ForbiddenError, match="reaches"):
            check_approval(asked, agreeing(regions=regions), SERVED, STRANGERS, NOW)


def test_only_a_living_request_is_agreed_to() -> None:
    """What lapsed, was approved, used, declined or withdrawn is not approved again."""
    for approval, now in (
        (ASKED, LATER),
        (APPROVED, NOW),
        (USED, NOW),
        (DECLINED, NOW),
        (WITHDRAWN, NOW),
    ):
        with pytest.raises(ConflictError):
            check_approval(approval, agreeing("token:c"), SERVED, STRANGERS, now)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("state", State)
def test_only_what_is_open_is_ended(state: State, ending: State) -> None:
    """A request and an unused approval can be ended, and nothing that has ended already."""
    approval = OF_STATE.get(state, APPROVED)
    who = agreeing("token:a" if ending is State.WITHDRAWN else "token:c")
    now = LATER if state is State.LAPSED else NOW
    if state in (State.REQUESTED, State.APPROVED):
        check_end(approval, who, ending, now)
    else:
        with pytest.raises(ConflictError):
            check_end(approval, who, ending, now)


def test_one_withdraws_ones_own_and_declines_anothers() -> None:
    """Nobody withdraws for somebody else, nor declines what they asked for themselves."""
    with pytest.raises(ForbiddenError, match="only who asked"):
        check_end(ASKED, agreeing("token:c"), State.WITHDRAWN, NOW)
    with pytest.raises(ForbiddenError, match="withdraw it"):
        check_end(ASKED, agreeing("token:a"), State.DECLINED, NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {"act": Act.HOLD_RELEASE},
        {"subject": str(uuid.UUID(int=2))},
        {"region": "sg"},
        {"purpose": "investigate-incident"},
        {"reference": "X-999"},
        {"purpose": None},
        {"reference": None},
        {"days": 31},
    ],
)
def test_it_is_good_for_one_thing(changed: dict[str, Any]) -> None:
    """An approval binds each part of what it was asked for."""
    for terms in TERMS.values():
        other = replace(terms, **changed)
        agreed = replace(APPROVED, terms=terms)
        check_use(agreed, terms, "token:a", STRANGERS, NOW)
        with pytest.raises(ForbiddenError):
            check_use(agreed, terms, "token:c", STRANGERS, NOW)
        if other != terms:
            with pytest.raises(ForbiddenError, match="only"):
                check_use(agreed, other, "token:a", STRANGERS, NOW)


@pytest.mark.parametrize("state", State)
def test_it_is_used_only_when_approved(state: State) -> None:
    """Of all states, only the approved one lets the act happen."""
    approval = OF_STATE.get(state, APPROVED)
    now = LATER if state is State.LAPSED else NOW
    assert approval.state(now) is state
    if state is State.APPROVED:
        check_use(approval, RELEASE, "token:a", STRANGERS, now)
    else:
        with pytest.raises(VaultError):
            check_use(approval, RELEASE, "token:a", STRANGERS, now)
