"""The inputs of tests/cases through every entrance: the rule is the same, and the reason too."""

import argparse
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.message import EmailMessage
from pathlib import Path

import pytest

from tests.fixtures_telefax import CALLEE
from tests.integration.test_fax_listener import Listener, listener
from vault.actions.credentials import create_token
from vault.commands.faxes import NOTE_SUFFIX
from vault.commands.parser import make_parser
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal
from vault.domain.credentials import Grant
from vault.errors import VaultError

CASES = Path(__file__).parents[1] / "cases"
TOO_WIDE = "page 1 is 4960 by 400 dots; a fax is at most 4864 by 32768"
#: What is no fax, and why; as a document each is taken.
NO_FAX = {
    "scan-600dpi.tif": TOO_WIDE,
    "tiny.jpg": "must be one of application/pdf, image/tiff|only PDF and TIFF attachments",
}
FILES = sorted(path.name for path in CASES.iterdir() if path.suffix in {".pdf", ".tif", ".jpg"})
#: Where a fax to each number is kept; None: nowhere, unless a region is said.
NUMBERS = {
    CALLEE: "uk",
    "+16215550123": "us",
    "+19245550123": "us",
    "+17875550123": "us",
    "+14165550123": "us",
    "+33142685300": None,
    "+6561234567": None,
}
#: A refusal, or None.
Entrance = Callable[[bytes, Path, str], Awaitable[str | None]]


@dataclass
class Entrances:
    """The ways in which a document, or a fax for a number, comes in."""

    there: Listener
    order: str
    queue: Path

    async def upload(self, data: bytes, path: Path, number: str) -> str | None:
        """Bring a document over HTTP."""
        status, answer = await self.there.api.put(self.order, data, "loa")
        return None if status == 201 else str(answer["detail"])

    async def put(self, data: bytes, path: Path, number: str) -> str | None:
        """Bring a document by `portvault put`."""
        return await self._run("put", str(path), "--order", self.order, "--kind", "loa")

    async def fax(self, data: bytes, path: Path, number: str) -> str | None:
        """Bring a fax over HTTP."""
        status, answer = await self.there.faxes.send(data, to=number)
        return None if status == 201 else str(answer["detail"])

    async def mail(self, data: bytes, path: Path, number: str) -> str | None:
        """Mail a fax, as what a mail program takes it for when it does not know."""
        made = EmailMessage()
        made["From"], made["Subject"] = "alice@acme.test", "please fax"
        made.add_attachment(data, maintype="application", subtype="octet-stream", filename="a")
        code, said = await self.there.say(made, to=f"{number}@fax.test")
        return None if code == 250 else said

    async def hylafax(self, data: bytes, path: Path, number: str) -> str | None:
        """Have HylaFAX bring a fax."""
        queued = self.queue / f"fax{len(list(self.queue.iterdir()))}.tif"
        queued.write_bytes(data)
        note = queued.with_name(queued.name + NOTE_SUFFIX)
        note.write_text("{}")
        words = ("fax", "received", "--to", number, str(queued), "ttyS0", "7", "")
        refusal = await self._run(*words)
        assert refusal is not None or not note.exists(), "what an earlier run left"
        return refusal

    async def _run(self, *words: str) -> str | None:
        args: argparse.Namespace = make_parser().parse_args(words)
        token = self.there.api.tokens["fax-gateway" if words[0] == "fax" else "porting"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PORTVAULT_SERVER", self.there.api.url)
            patch.setenv("PORTVAULT_TOKEN", token)
            try:
                await args.run(args)
            except VaultError as error:
                return str(error)
        return None


@asynccontextmanager
async def entrances(config: Config, directory: Path) -> AsyncIterator[Entrances]:
    """Serve a vault of two regions with all its entrances; its gateway has both."""
    queue = directory / "recvq"
    queue.mkdir(exist_ok=True)
    async with listener(replace(config, regions=("uk", "us"))) as there:
        there.api.tokens["fax-gateway"] = await gateway(there.vault, "uk", "us")
        yield Entrances(there, await there.api.order(), queue)


async def gateway(vault: Vault, *regions: str) -> str:
    """Make the token of a gateway of these regions."""
    admin = Principal("operator:test", "admin", frozenset(vault.config.regions))
    _, token = await create_token(
        vault, admin, Grant("fax-gateway", frozenset(regions)), label="+".join(regions)
    )
    return token


async def test_a_file_is_judged_alike_at_every_entrance(config: Config, tmp_path: Path) -> None:
    """What viewers open is taken as a document and as a fax; what is no fax is refused by name."""
    wrong = list[tuple[str, str, str | None]]()
    async with entrances(config, tmp_path) as ways:
        for name in FILES:
            path = CASES / name
            said = dict.fromkeys((ways.upload, ways.put)) | dict.fromkeys(
                (ways.fax, ways.mail, ways.hylafax), NO_FAX.get(name)
            )
            for way, expected in said.items():
                found = await way(path.read_bytes(), path, CALLEE)
                alike = re.search(expected or "", found or "") is not None
                if (found is None) != (expected is None) or not alike:
                    wrong.append((name, way.__name__, found))
    assert wrong == []
    assert set(NO_FAX) < set(FILES)


async def test_a_number_is_routed_alike_at_every_entrance(config: Config, tmp_path: Path) -> None:
    """By its country code, else by a setting; where neither says it the refusal names that."""
    data, path = (CASES / "s-ok.pdf").read_bytes(), CASES / "s-ok.pdf"
    for other in ("", "us"):
        wrong = list[tuple[str, str, str | None]]()
        async with entrances(replace(config, fax_other_region=other), tmp_path) as ways:
            for number, region in NUMBERS.items():
                foreign = number.startswith("+33")
                expected = other or None if foreign else region
                reason = "fax_other_region" if foreign else "region is sg; served here: uk, us"
                for way in (ways.fax, ways.mail, ways.hylafax):
                    before = await kept(ways)
                    refusal = await way(data, path, number)
                    went = {
                        place
                        for place, count in (await kept(ways)).items()
                        if count > before.get(place, 0)
                    }
                    right = went == ({expected} if expected else set())
                    right = right and (expected is not None or reason in (refusal or ""))
                    if not right:
                        wrong.append((number, way.__name__, refusal))
            assert wrong == []


async def kept(ways: Entrances) -> dict[str, int]:
    """Return how many faxes each region has."""
    rows = await ways.there.vault.pool.fetch("select region, count(*) from fax group by region")
    return {row["region"]: row["count"] for row in rows}


async def test_a_gateway_of_one_region_keeps_what_no_country_decides(
    config: Config, tmp_path: Path
) -> None:
    """Its own region is the only one that it could say; a country's is not moved by that."""
    data, path = (CASES / "s-ok.pdf").read_bytes(), CASES / "s-ok.pdf"
    async with entrances(replace(config, fax_other_region="us"), tmp_path) as ways:
        ways.there.api.tokens["fax-gateway"] = await gateway(ways.there.vault, "uk")
        for way in (ways.fax, ways.hylafax):
            assert await way(data, path, "+33142685300") is None
            assert await way(data, path, "+14165550123") is not None
        assert await kept(ways) == {"uk": 2}
