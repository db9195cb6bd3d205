"""
A real vault behind a real HTTP server, on a fresh database, directory stores and a file custodian.

`vault` has no worker of its own: a test runs the reconcilers it speaks of. `api` is a client of the
server with a token for each role.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.described import watched
from tests.fixtures_postgres import as_service
from vault.actions.credentials import create_token
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.credentials import Grant
from vault.domain.people import named_person
from vault.web import listening

SAMPLES = Path(__file__).parent / "samples"
OPERATOR = Principal("operator:test", "admin", frozenset({"uk", "sg"}))
PORTING = Principal("desk", "porting", frozenset({"uk"}))
NUMBERS = ["+442079460123"]
#: Of the country of each region.
NUMBERS_OF = {"uk": NUMBERS, "sg": ["+6561234567"]}


@pytest.fixture
def config(tmp_path: Path, database: str) -> Config:
    """Give settings for two regions under a temporary home, with no waiting."""
    return Config(
        home=tmp_path / "home",
        database=database,
        port=0,
        regions=("uk", "sg"),
        reversal_grace_seconds=0.0,
        key_cache_seconds=1.0,
        record_timeout_seconds=2.0,
        record_renewal_seconds=0.2,
        # No worker publishes here, and a slow machine takes its time.
        record_publish_seconds_max=3600.0,
        upload_idle_seconds=2.0,
        store_timeout_seconds=2.0,
        database_timeout_seconds=2.0,
        worker=False,
        refusals_per_minute_max=1_000_000,
        refusals_per_address_max=1_000_000,
    )


@pytest.fixture
async def vault(config: Config) -> AsyncIterator[Vault]:
    """Open a vault on real parts."""
    async with open_vault(config, dsn=as_service(config.database)) as opened:
        yield opened


async def in_pieces(data: bytes) -> AsyncIterator[bytes]:
    """Yield the bytes a MiB at a time."""
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]


@dataclass
class Api:
    """A client of the server; `as_role` picks the token."""

    url: str
    session: aiohttp.ClientSession
    tokens: dict[str, str]
    headers: dict[str, str] = field(default_factory=dict)

    async def call(
        self, method: str, path: str, *, role: str = "porting", **options: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Call and return the status, the parsed or raw body, and the response."""
        headers = {"Authorization": f"Bearer {self.tokens[role]}", **options.pop("headers", {})}
        async with self.session.request(
            method, self.url + path, headers=headers, **options
        ) as response:
            raw = await response.read()
            body = (
                await response.json(content_type=None) if "json" in (response.content_type) else raw
            )
            return response.status, body, response

    async def order(self, region: str = "uk", role: str = "porting") -> str:
        """Open an order and return its id."""
        fields = {"region": region, "customer": "acme", "numbers": NUMBERS_OF[region]}
        status, body, _ = await self.call("POST", "/v1/orders", json=fields, role=role)
        assert status == 201, body
        return str(body["id"])

    async def put(
        self, order: str, data: bytes | AsyncIterator[bytes], kind: str = "passport", **headers: str
    ) -> tuple[int, Any]:
        """Upload a document."""
        status, body, _ = await self.call(
            "POST", f"/v1/orders/{order}/documents?kind={kind}", data=data, headers=headers
        )
        return status, body

    async def get(
        self, document: str, purpose: str | None = "verify-identity", role: str = "porting"
    ) -> tuple[int, Any]:
        """Read a document's content."""
        headers = {"Access-Purpose": purpose} if purpose else {}
        status, body, _ = await self.call(
            "GET", f"/v1/documents/{document}/content", headers=headers, role=role
        )
        return status, body


@pytest.fixture
async def api(vault: Vault) -> AsyncIterator[Api]:
    """Serve the vault and give a client."""
    async with serving(vault) as client:
        yield client


@asynccontextmanager
async def serving(vault: Vault) -> AsyncIterator[Api]:
    """
    Serve a vault on loopback and give a client with a token for each role, of a person each.

    Whatever a test does: each answer that the client gets has to stand in the description.
    """
    tokens = {}
    for role, wanted in (
        ("porting", {"uk"}),
        ("porting-sg", {"sg"}),
        ("compliance", {"uk", "sg"}),
        ("dpo", {"uk"}),
        ("admin", {"uk", "sg"}),
        ("fax-gateway", {"uk"}),
        ("witness", {"uk"}),
        ("auditor", {"uk"}),
    ):
        regions = sorted(wanted & set(vault.config.regions))
        if not regions:
            continue
        _, tokens[role] = await create_token(
            vault,
            OPERATOR,
            Grant(role.removesuffix("-sg"), frozenset(regions), person=named_person("", role)),
            label=role,
        )
    headers, undescribed = {"Content-Type": "application/octet-stream"}, set[Any]()
    async with (
        listening.serving(vault.config, vault) as url,
        aiohttp.ClientSession(headers=headers, trace_configs=[watched(undescribed)]) as session,
    ):
        yield Api(url, session, tokens)
    assert undescribed == set(), "answers that the description does not tell of"


@pytest.fixture(scope="session")
def passport() -> bytes:
    """Give a specimen passport scan (JPEG)."""
    return (SAMPLES / "passport-uto.jpg").read_bytes()


@pytest.fixture(scope="session")
def authorisation() -> bytes:
    """Give a specimen letter of authorisation (PDF)."""
    return (SAMPLES / "loa.pdf").read_bytes()
