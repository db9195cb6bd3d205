"""The decision, over every combination of role, action, purpose, region and custody."""

from itertools import product

from vault.domain.access import (
    ALLOWED,
    NEEDS_REFERENCE,
    Action,
    Principal,
    Purpose,
    Reason,
    Role,
    decide,
)
from vault.domain.documents import Custody

EVERYTHING = list(
    product(Role, Action, [*Purpose, "curiosity", None], ["uk", "sg", None], [*Custody, None])
)


def decision(role: str, action: Action, purpose: str | None, region: str | None, custody):
    """Decide for a principal of the UK that gives a reference."""
    principal = Principal("token:x", role, frozenset({"uk"}))
    return decide(
        principal, action, region=region, custody=custody, purpose=purpose, reference="T-1"
    )


def test_nobody_both_reads_content_and_administers() -> None:
    """No role reads content and also sees the log, the tokens or the keys."""
    administration = {
        Action.LOG_READ,
        Action.TOKEN_CREATE,
        Action.TOKEN_LIST,
        Action.TOKEN_REVOKE,
        Action.KEYS_SEAL,
        Action.KEYS_READ,
    }
    for role in Role:
        allowed = ALLOWED[role]
        assert not (Action.DOCUMENT_READ in allowed and allowed & administration)


def test_content_is_read_only_by_the_right_role_for_the_right_purpose_in_its_region() -> None:
    """Every allowed read is of a stored document of one's own region for a purpose of one's own."""
    allowed = [
        combination
        for combination in EVERYTHING
        if combination[1] is Action.DOCUMENT_READ and decision(*combination).allow
    ]
    assert allowed
    for role, _, purpose, region, custody in allowed:
        assert role is Role.PORTING
        assert purpose in {"verify-identity", "submit-to-carrier", "resolve-exception"}
        assert (region, custody) == ("uk", Custody.STORED)


def test_a_purpose_never_widens_a_role() -> None:
    """What a role may not do, it may not do for any purpose."""
    for role, action, purpose, region, custody in EVERYTHING:
        if action not in ALLOWED[role]:
            made = decision(role, action, purpose, region, custody)
            assert (made.allow, made.reason) == (False, Reason.ROLE)


def test_nothing_is_allowed_outside_ones_regions() -> None:
    """A thing elsewhere, and one that does not exist, are refused for every role and action."""
    for combination in EVERYTHING:
        if combination[3] != "uk":
            assert not decision(*combination).allow


def test_every_denial_has_a_reason() -> None:
    """Allowed is the reason of what is allowed, and of nothing else."""
    for combination in EVERYTHING:
        made = decision(*combination)
        assert made.allow == (made.reason is Reason.ALLOWED)


def test_purposes_that_need_a_reference_are_named() -> None:
    """The three purposes of people outside the porting team want a reference."""
    assert {str(purpose) for purpose in NEEDS_REFERENCE} == {
        "answer-data-subject",
        "disclose-to-authority",
        "investigate-incident",
    }
