"""Specimen faxes, and the ways in which a TIFF can be wrong."""

import io
import struct
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pikepdf
import pytest

from tests.fixtures_server import SAMPLES, Api

CALLER, CALLEE = "+442079460999", "+442079460123"


@pytest.fixture(scope="session")
def fax() -> bytes:
    """Give a fax of two pages, G3."""
    return (SAMPLES / "fax-2p-g3.tif").read_bytes()


@dataclass
class Faxes:
    """The calls of a fax gateway."""

    api: Api

    async def send(
        self,
        data: bytes | AsyncIterator[bytes],
        *,
        role: str = "fax-gateway",
        headers: Any = None,
        **query: Any,
    ) -> tuple[int, Any]:
        """Bring a fax; `query` overrides what is said of it."""
        said = {"direction": "inbound", "from": CALLER, "to": CALLEE, **query}
        status, body, _ = await self.api.call(
            "POST", "/v1/faxes", role=role, data=data, params=said, headers=headers or {}
        )
        return status, body

    async def taken(self, data: bytes | AsyncIterator[bytes], **query: Any) -> str:
        """Bring a fax and return its id."""
        status, body = await self.send(data, **query)
        assert status == 201, body
        return str(body["id"])

    async def show(self, fax: str, role: str = "fax-gateway") -> tuple[int, Any]:
        """Show a fax or its receipt."""
        status, body, _ = await self.api.call("GET", f"/v1/faxes/{fax}", role=role)
        return status, body

    async def content(self, fax: str, role: str = "fax-gateway") -> tuple[int, Any, Any]:
        """Fetch a fax."""
        return await self.api.call("GET", f"/v1/faxes/{fax}/content", role=role)

    async def act(self, fax: str, action: str, **fields: Any) -> tuple[int, Any]:
        """Deliver or fail."""
        status, body, _ = await self.api.call(
            "POST", f"/v1/faxes/{fax}/actions/{action}", role="fax-gateway", json=fields
        )
        return status, body


@pytest.fixture
def faxes(api: Api) -> Faxes:
    """Give the calls of a fax gateway."""
    return Faxes(api)


G4_STRIP = bytes.fromhex("0010010000")  # End of block, twice end-of-line, after no line at all.
G3_STRIP = bytes.fromhex("001350cc80")


def tiff(
    *pages: Mapping[int, tuple[int, int] | None], order: str = "<", strip: bytes = G4_STRIP
) -> bytes:
    """Return a TIFF whose pages have these tags over the usual ones; None leaves one out."""
    out = bytearray((b"II*\x00" if order == "<" else b"MM\x00*") + bytes(4))
    out += strip
    link = 4
    for changed in pages:
        tags: dict[int, tuple[int, int] | None] = {
            256: (3, 1728),
            257: (3, 8),
            259: (3, 4),
            262: (3, 0),
            273: (4, 8),
            278: (3, 8),
            279: (4, len(strip)),
            **changed,
        }
        struct.pack_into(order + "I", out, link, len(out))
        kept = sorted((tag, value) for tag, value in tags.items() if value is not None)
        out += struct.pack(order + "H", len(kept))
        for tag, (kind, value) in kept:
            packed = struct.pack(order + ("H2x" if kind == 3 else "I"), value)
            out += struct.pack(order + "HHI", tag, kind, 1) + packed
        link = len(out)
        out += bytes(4)
    return bytes(out)


def loop(data: bytes) -> bytes:
    """Return the TIFF with its last directory naming its first as the next."""
    (first,) = struct.unpack_from("<I", data, 4)
    return data[:-4] + struct.pack("<I", first)


def altered_pdf(data: bytes, how: str) -> bytes:
    """Return a PDF with something in it that no fax has."""
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(data)) as pdf:
        encryption: Any = False
        name = pikepdf.Name
        if how == "script":
            pdf.Root.OpenAction = pikepdf.Dictionary(S=name.JavaScript, JS="app.alert(1)")
        elif how == "launch":
            action = pikepdf.Dictionary(S=name.Launch, F="calc.exe")
            pdf.pages[0].AA = pikepdf.Dictionary(O=action)
        elif how == "attachment":
            pdf.attachments["a.txt"] = b"hello"
        elif how == "encrypted":
            encryption = pikepdf.Encryption(owner="owner", user="")
        elif how == "locked":
            encryption = pikepdf.Encryption(owner="owner", user="user")
        elif how == "no pages":
            del pdf.pages[0:]
        elif how == "absurd":
            pdf.pages[0].MediaBox = [0, 0, 1_000_000, 800]
        pdf.save(out, encryption=encryption)
    return out.getvalue()
