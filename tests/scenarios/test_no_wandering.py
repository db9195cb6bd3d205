"""Promise 6: content leaves its region only on a recorded transfer basis."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tests.fixtures_server import Api, in_pieces
from vault.actions.access import reader_region
from vault.actions.orders import create_order, show_order
from vault.actions.read import describe, open_content
from vault.context import Vault
from vault.domain.access import Principal
from vault.errors import ResidencyError

DESK = Principal("token:desk", "porting", frozenset({"uk", "sg"}))
TRANSFERS = "select * from access_record where region_to <> region order by at, id"


async def read(vault: Vault, document: str, who: Principal) -> bytes:
    """Read a document to its end."""
    async with open_content(
        vault, who, UUID(document), purpose="verify-identity", reference=None
    ) as content:
        return b"".join([chunk async for chunk in content.chunks])


@pytest.fixture
async def document(api: Api, passport: bytes) -> str:
    """Give a passport that lies in the UK."""
    _, made = await api.put(await api.order(), in_pieces(passport), filename="x")
    return str(made["id"])


async def test_within_its_region_content_needs_no_basis(
    vault: Vault, document: str, passport: bytes
) -> None:
    """Who reads where it lies reads, and the record says that it stayed there."""
    assert await read(vault, document, replace(DESK, located="uk")) == passport
    row = await vault.pool.fetchrow(
        "select region_to, basis from access_record"
        " where action = 'document.read' and phase = 'intent'"
    )
    assert row is not None
    assert tuple(row) == ("uk", "same-region")


async def test_elsewhere_it_goes_on_a_basis_that_the_record_names(
    vault: Vault, document: str, passport: bytes
) -> None:
    """From Singapore a document of the UK is read on the agreement between them, by name."""
    assert await read(vault, document, replace(DESK, located="sg")) == passport
    (row,) = await vault.pool.fetch(TRANSFERS)
    assert (row["region"], row["region_to"], row["decision"]) == ("uk", "sg", "allow")
    assert row["basis"] == "idta group-idta-1 until 2029-01-01"


async def test_without_a_basis_it_is_refused_and_recorded(vault: Vault, document: str) -> None:
    """In Hong Kong nothing is read, and compliance sees who tried."""
    with pytest.raises(ResidencyError, match="hk"):
        await read(vault, document, replace(DESK, located="hk"))
    (row,) = await vault.pool.fetch(TRANSFERS)
    assert (row["region_to"], row["decision"], row["reason"], row["basis"]) == (
        "hk",
        "deny",
        "no-transfer-basis",
        None,
    )


async def test_a_basis_that_expired_is_none(vault: Vault, document: str) -> None:
    """The day the agreement ends, what was read yesterday is refused."""
    later = replace(vault, clock=lambda: datetime(2029, 1, 1, tzinfo=UTC))
    with pytest.raises(ResidencyError):
        await read(later, document, replace(DESK, located="sg"))


async def test_names_do_not_wander_either(vault: Vault, api: Api) -> None:
    """Where a thing may not go, an order is not opened, and a document has no name."""
    there = replace(DESK, located="hk")
    here = replace(DESK, located="uk")
    view = await create_order(vault, here, region="uk", customer="acme", numbers=["+442079460123"])
    with pytest.raises(ResidencyError):
        await show_order(vault, there, view.order.id)
    _, made = await api.put(
        str(view.order.id),
        b"%PDF-1.4\n" + bytes(100),
        kind="loa",
        **{"Content-Disposition": 'attachment; filename="letter.pdf"'},
    )
    assert (await describe(vault, here, UUID(made["id"]))).filename == "letter.pdf"
    assert (await describe(vault, there, UUID(made["id"]))).filename is None


async def test_where_one_reads_is_granted_not_said(vault: Vault) -> None:
    """The reader's region is the grant's, or its only region, or the deployment's; no header's."""
    assert reader_region(vault, replace(DESK, located="sg")) == "sg"
    assert reader_region(vault, replace(DESK, regions=frozenset({"sg"}))) == "sg"
    assert reader_region(vault, DESK) == "uk"
    abroad = replace(vault, config=replace(vault.config, located="nz"))
    assert reader_region(abroad, DESK) == "nz"
    assert reader_region(abroad, replace(DESK, located="sg")) == "sg"


async def test_no_header_makes_a_reader_be_elsewhere(api: Api, document: str) -> None:
    """Whatever a client writes about its place or address, the record says what was granted."""
    path = f"/v1/documents/{document}/content"
    claims = (
        "Access-Region",
        "X-Region",
        "X-Forwarded-For",
        "Forwarded",
        "X-Real-IP",
        "CF-IPCountry",
    )
    headers = {"Access-Purpose": "verify-identity", **dict.fromkeys(claims, "hk")}
    status, _, _ = await api.call("GET", path, headers=headers)
    assert status == 200
