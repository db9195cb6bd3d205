"""What tests of `portvault` share: tokens, scans, commands that run on, and broken peers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fixtures_process import VaultProcess

SCAN = Path(__file__).parent / "samples" / "passport-uto.jpg"
LETTER = SCAN.with_name("loa.pdf")
UNKNOWN = "00000000-0000-4000-8000-000000000000"
NUMBER = ("--number", "+442079460123")


async def token_of(
    vault: VaultProcess, role: str, person: str | None = "its role's"
) -> dict[str, str]:
    """Make a token, of one person for each role, and return it as the variable clients read."""
    named = ("--person", f"{role}-1" if person == "its role's" else person) if person else ()
    made = await vault.json("token", "create", "--role", role, "--region", "uk", *named)
    return {"PORTVAULT_TOKEN": made["token"]}


async def scan_of(vault: VaultProcess, token: dict[str, str]) -> tuple[str, str]:
    """Open an order, put a scan, and return both ids."""
    create = ("order", "create", "--region", "uk", "--customer", "acme", *NUMBER)
    order = await vault.json(*create, **token)
    put = ("put", str(SCAN), "--order", order["id"], "--kind", "passport")
    document = await vault.json(*put, **token)
    return order["id"], document["id"]


def get(document: str, target: object) -> tuple[str, ...]:
    """Return the command that reads a document into a file."""
    return ("get", document, "--purpose", "verify-identity", "-o", str(target))


def one_line(says: str) -> bool:
    """Whether this is one line of `portvault`'s own."""
    return says.startswith("portvault: ") and says.count("\n") == 1 and "Traceback" not in says


@asynccontextmanager
async def answering(answer: bytes, *, stay: bool = False) -> AsyncIterator[dict[str, str]]:
    """Answer every connection with these bytes, then hang up or stay silent: a broken peer."""
    silent = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            if stay:
                await silent.wait()
        except asyncio.IncompleteReadError:
            # It asked whether TLS is spoken here.
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield {"PORTVAULT_SERVER": f"http://127.0.0.1:{port}", "PORTVAULT_TOKEN": "pv_x"}
        silent.set()
