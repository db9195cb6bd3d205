"""Four eyes, over every role, act and state: who may ask, who may agree, what it is good for."""

import uuid
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from vault.domain.access import ALLOWED, Action, Principal, Role
from vault.domain.approvals import (
    APPROVERS,
    REQUESTERS,
    Act,
    Approval,
    State,
    check_approval,
    check_request,
    check_use,
)
from vault.errors import ConflictError, ForbiddenError, InvalidRequestError, VaultError

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)
ASKED = Approval(
    uuid.UUID(int=1), Act.HOLD_RELEASE, "hold-1", "uk", "the case ended", "token:a", NOW, LATER
)
APPROVED = replace(ASKED, approved_by="token:b", approved_at=NOW)
USED = replace(APPROVED, used_at=NOW)
OF_STATE = {State.REQUESTED: ASKED, State.APPROVED: APPROVED, State.USED: USED}
SERVED = ("sg", "uk")
USE = (Act.HOLD_RELEASE, "hold-1", "uk", "token:a")


def agreeing(
    name: str = "token:b", role: str = "dpo", regions: Collection[str] = SERVED
) -> Principal:
    return Principal(name, role, frozenset(regions))


@pytest.mark.parametrize("act", Act)
def test_each_act_is_asked_for_and_agreed_to_by_roles_that_may(act: Act) -> None:
    """Every act has somebody who asks and somebody else who agrees, and no desk is among them."""
    assert REQUESTERS[act]
    assert APPROVERS[act]
    for role in Role:
        assert (role in REQUESTERS[act]) <= (Action.APPROVAL_REQUEST in ALLOWED[role])
        assert (role in APPROVERS[act]) <= (Action.APPROVAL_APPROVE in ALLOWED[role])
    assert not {Role.PORTING, Role.FAX_GATEWAY} & (REQUESTERS[act] | APPROVERS[act])


@pytest.mark.parametrize("act", Act)
@pytest.mark.parametrize("role", Role)
def test_no_other_role_asks_or_agrees(role: Role, act: Act) -> None:
    """A role that is not named for an act is refused, whatever else it may do."""
    if role not in REQUESTERS[act]:
        with pytest.raises(ForbiddenError, match="may not ask"):
            check_request(role, act, "hold-1", "the case ended")
    if role not in APPROVERS[act]:
        with pytest.raises(ForbiddenError, match="may not approve"):
            check_approval(replace(ASKED, act=act), agreeing(role=role), SERVED, NOW)


@pytest.mark.parametrize("subject", ["", "Jane Doe", "x" * 129, "hold\n1"])
def test_a_subject_is_a_code(subject: str) -> None:
    """The subject stands in the log, so it is an id and no name."""
    with pytest.raises(InvalidRequestError, match="subject"):
        check_request("dpo", Act.HOLD_RELEASE, subject, "the case ended")


@pytest.mark.parametrize("reason", ["", " ", "x" * 201, "a\nb"])
def test_a_request_has_a_reason(reason: str) -> None:
    """Who agrees must know why."""
    with pytest.raises(InvalidRequestError, match="reason"):
        check_request("dpo", Act.HOLD_RELEASE, "hold-1", reason)


def test_nobody_agrees_with_oneself() -> None:
    """The second pair of eyes belongs to another principal."""
    with pytest.raises(ForbiddenError, match="somebody else"):
        check_approval(ASKED, agreeing("token:a"), SERVED, NOW)
    check_approval(ASKED, agreeing(), SERVED, NOW)


@pytest.mark.parametrize(
    "act, subject, regions, agreed",
    [
        (Act.HOLD_RELEASE, "hold-1", {"uk"}, True),
        (Act.HOLD_RELEASE, "hold-1", {"sg"}, False),
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
    asked = replace(ASKED, act=act, subject=subject)
    if agreed:
        check_approval(asked, agreeing(regions=regions), SERVED, NOW)
    else:
        with pytest.raises(ForbiddenError, match="reaches"):
            check_approval(asked, agreeing(regions=regions), SERVED, NOW)


def test_only_a_living_request_is_agreed_to() -> None:
    """What lapsed, was approved or was used is not approved again."""
    for approval, now in ((ASKED, LATER), (APPROVED, NOW), (USED, NOW)):
        with pytest.raises(ConflictError):
            check_approval(approval, agreeing("token:c"), SERVED, now)


@pytest.mark.parametrize(
    "act, subject, region, principal",
    [
        (Act.DISCLOSURE, "hold-1", "uk", "token:a"),
        (Act.HOLD_RELEASE, "hold-2", "uk", "token:a"),
        (Act.HOLD_RELEASE, "hold-1", "sg", "token:a"),
        (Act.HOLD_RELEASE, "hold-1", "uk", "token:b"),
    ],
)
def test_it_is_good_for_one_thing(act: Act, subject: str, region: str, principal: str) -> None:
    """An approval of one act, subject, region and principal is none of another."""
    check_use(APPROVED, *USE, NOW)
    with pytest.raises(ForbiddenError):
        check_use(APPROVED, act, subject, region, principal, NOW)


@pytest.mark.parametrize("state", State)
def test_it_is_used_only_when_approved(state: State) -> None:
    """Of all states, only the approved one lets the act happen."""
    approval = OF_STATE.get(state, APPROVED)
    now = LATER if state is State.LAPSED else NOW
    assert approval.state(now) is state
    if state is State.APPROVED:
        check_use(approval, *USE, now)
    else:
        with pytest.raises(VaultError):
            check_use(approval, *USE, now)
