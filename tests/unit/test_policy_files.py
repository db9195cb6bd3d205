"""Purposes and transfers as data: what is shipped, and that a wrong file stops the start."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from vault.config.policies import read_rules
from vault.domain.access import Purpose
from vault.domain.placement import Basis, basis_for, parse_transfers
from vault.domain.purposes import parse_purposes
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PURPOSE = {
    "name": '"verify-identity"',
    "roles": '["porting"]',
    "reference": '""',
    "approval": "false",
    "restricted": "false",
    "kinds": '["passport"]',
    "why": '"law"',
}
TRANSFER = {
    "from": '"uk"',
    "to": '["us"]',
    "basis": '"idta"',
    "version": '"v1"',
    "expires": '"2027-01-01"',
    "citation": '"law"',
}


def row(table: str, fields: dict[str, str], **changed: str | None) -> str:
    """Return one row of a file, changed; None leaves a field out."""
    items = {**fields, **{name.rstrip("_"): value for name, value in changed.items()}}
    lines = [f"{name} = {value}" for name, value in items.items() if value is not None]
    return f"[[{table}]]\n" + "\n".join(lines) + "\n"


def test_what_is_shipped_names_every_purpose() -> None:
    """Each purpose has its row, and those of people outside the desk want a reference."""
    purposes = read_rules(Path("/nowhere")).purposes
    assert set(purposes) == set(Purpose)
    assert {name for name, rule in purposes.items() if rule.reference} == {
        "answer-data-subject",
        "disclose-to-authority",
        "investigate-incident",
    }


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"name": '"curiosity"'}, "verify-identity"),
        ({"roles": '["king"]'}, "king"),
        ({"roles": "[]"}, "nothing"),
        ({"roles": '["compliance"]', "approval": "true"}, "compliance never reads"),
        ({"roles": '["admin"]', "approval": "true"}, "admin never reads"),
        ({"roles": '["dpo"]'}, "only with approval"),
        ({"roles": '["porting", "fax-gateway"]', "kinds": '["passport", "fax"]'}, "faxes"),
        ({"kinds": '["selfie"]'}, "selfie"),
        ({"kinds": None}, "exactly"),
        ({"approval": '"no"'}, "exactly"),
        ({"why": '" "'}, "why"),
        ({"extra": "1"}, "exactly"),
    ],
)
def test_a_purpose_that_is_wrong_or_widens_a_role_is_refused(
    changed: dict[str, str | None], says: str
) -> None:
    """Each mistake is named with its row; none lets a role read that reads nothing."""
    with pytest.raises(ConfigurationError, match=says):
        parse_purposes(row("purposes", PURPOSE, **changed))


def test_a_purpose_stands_once() -> None:
    """Two rows for one purpose are a contradiction, whatever they say."""
    with pytest.raises(ConfigurationError, match="again"):
        parse_purposes(row("purposes", PURPOSE) * 2)


@pytest.mark.parametrize("text", ["", "purposes = 1", "[[purposes]]\nname =", "transfers = ["])
def test_a_file_that_is_none_is_refused(text: str) -> None:
    """An empty or broken file is no policy."""
    for parse in (parse_purposes, parse_transfers):
        with pytest.raises(ConfigurationError):
            parse(text)


def test_what_is_shipped_documents_five_regions_and_not_hong_kong() -> None:
    """Between the five each way there is a basis; nothing leaves Hong Kong or is read there."""
    transfers = read_rules(Path("/nowhere")).transfers
    for origin in REGIONS:
        for to in REGIONS:
            basis = basis_for(transfers, origin, to, NOW)
            assert (basis is None) == (origin != to and "hk" in (origin, to)), (origin, to)
            if basis and origin != to:
                assert basis.version
                assert basis.text().startswith(f"{basis.basis} {basis.version}")


def test_a_basis_expires() -> None:
    """On the day of its expiry a basis is none any more; within a region none is needed."""
    table = parse_transfers(row("transfers", TRANSFER))
    day, before = datetime(2027, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    found = basis_for(table, "uk", "us", before)
    assert found
    assert found.text() == "idta v1 until 2027-01-01"
    assert basis_for(table, "uk", "us", day) is None
    within = basis_for(table, "uk", "uk", day)
    assert within
    assert within.basis is Basis.SAME_REGION


def test_a_pair_works_in_its_direction_only() -> None:
    """That content may go one way says nothing about the way back."""
    table = parse_transfers(row("transfers", TRANSFER))
    assert basis_for(table, "us", "uk", NOW) is None


@pytest.mark.parametrize(
    "changed, says",
    [
        ({"from_": '"mars"'}, "from which region"),
        ({"to": '"us"'}, "list of them"),
        ({"to": '["uk"]'}, "no other region"),
        ({"to": '["mars"]'}, "no other region"),
        ({"to": '["us", "us"]'}, "again"),
        ({"basis": '"handshake"'}, "basis"),
        ({"basis": '"same-region"'}, "basis"),
        ({"version": '""'}, "which version"),
        ({"expires": '"soon"'}, "expires"),
        ({"expires": "2027-01-01"}, "in quotes"),
        ({"citation": '""'}, "source"),
        ({"citation": None}, "exactly"),
    ],
)
def test_a_transfer_that_is_wrong_is_refused(changed: dict[str, str | None], says: str) -> None:
    """A basis without version, source or sense stops the start and names its row."""
    with pytest.raises(ConfigurationError, match=says):
        parse_transfers(row("transfers", TRANSFER, **changed))
