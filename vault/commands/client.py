"""Commands for those who use the vault: they speak to its HTTP API with a token."""

import argparse
import asyncio
import base64
import contextlib
import hashlib
import os
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from vault.commands.output import Progress, facts, show, table
from vault.domain.media import HEAD_BYTES, by_signature
from vault.domain.orders import TRANSITIONS, Status
from vault.errors import (
    ConfigurationError,
    ForbiddenError,
    InvalidRequestError,
    NotFoundError,
    UnavailableError,
    VaultError,
)

CHUNK_BYTES = 64 * 1024
IDLE_SECONDS = 60.0
CONNECT_SECONDS = 10.0
_ERRORS: dict[int, type[VaultError]] = {
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    410: NotFoundError,
    503: UnavailableError,
}


def server_address() -> str:
    """Return where the vault is."""
    port = os.environ.get("PORTVAULT_PORT", "8700")
    return os.environ.get("PORTVAULT_SERVER", f"http://127.0.0.1:{port}").rstrip("/")


def token() -> str:
    """Return the token of the environment; raises with what to do where there is none."""
    found = os.environ.get("PORTVAULT_TOKEN", "")
    if not found and (path := os.environ.get("PORTVAULT_TOKEN_FILE")):
        try:
            found = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    if not found.strip():
        raise ConfigurationError(
            "set PORTVAULT_TOKEN or PORTVAULT_TOKEN_FILE; `portvault token create` makes a token"
        )
    return found.strip()


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session with the vault; what goes wrong becomes a sentence that says what to do."""
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS
    )
    headers = {"Authorization": f"Bearer {token()}"}
    address = server_address()
    try:
        async with aiohttp.ClientSession(address, headers=headers, timeout=timeout) as opened:
            yield opened
    except aiohttp.ClientConnectorError:
        raise UnavailableError(
            f"nothing answers at {address}; start `portvault serve` or set PORTVAULT_SERVER"
        ) from None
    except aiohttp.ClientPayloadError:
        raise UnavailableError("the vault cut the connection; nothing was kept") from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise UnavailableError(f"the vault does not answer: {type(error).__name__}") from None


async def check(response: aiohttp.ClientResponse) -> None:
    """Raise what a problem means."""
    if response.status < 400:
        return
    detail = response.reason or "refused"
    if response.content_type == "application/problem+json":
        detail = (await response.json(content_type=None))["detail"]
    raise _ERRORS.get(response.status, InvalidRequestError)(detail)


async def call(http: aiohttp.ClientSession, method: str, path: str, **options: Any) -> Any:
    """Call and return the JSON answer."""
    async with http.request(method, path, **options) as response:
        await check(response)
        return await response.json()


async def order_create(args: argparse.Namespace) -> None:
    """Open a porting order."""
    fields = {"region": args.region, "customer": args.customer, "numbers": args.number}
    if args.reference:
        fields["customer_reference"] = args.reference
    async with session() as http:
        order = await call(http, "POST", "/v1/orders", json=fields)
    show(order, order["id"], as_json=args.json)


async def order_list(args: argparse.Namespace) -> None:
    """List the newest orders."""
    async with session() as http:
        page = await call(http, "GET", f"/v1/orders?limit={args.limit}")
    columns = ("id", "region", "customer", "status", "created_at")
    show(page["data"], table(page["data"], columns), as_json=args.json)


async def order_show(args: argparse.Namespace) -> None:
    """Show an order with its documents."""
    async with session() as http:
        order = await call(http, "GET", f"/v1/orders/{quote(args.order, safe='')}")
    _show_order(order, args)


def _show_order(order: dict[str, Any], args: argparse.Namespace) -> None:
    text = facts(order)
    if order["documents"]:
        columns = ("id", "kind", "custody", "size_bytes", "stored_at")
        text += "\n\n" + table(order["documents"], columns)
    show(order, text, as_json=args.json)


async def order_end(args: argparse.Namespace) -> None:
    """Move an order to its end, along the carrier's transitions."""
    target = Status.PORTED if args.end == "complete" else Status.CANCELLED
    path = f"/v1/orders/{quote(args.order, safe='')}"
    async with session() as http:
        order = await call(http, "GET", path)
        for status in _way(Status(order["status"]), target):
            order = await call(http, "PATCH", path, json={"status": status.value})
    _show_order(order, args)


def _way(old: Status, new: Status) -> list[Status]:
    """Return the shortest way from one status to another; the last step alone where none is."""
    ways = deque([[old]])
    seen = {old}
    while ways:
        way = ways.popleft()
        if way[-1] is new:
            return way[1:]
        for status in sorted(TRANSITIONS[way[-1]] - seen):
            seen.add(status)
            ways.append([*way, status])
    return [new]


async def put(args: argparse.Namespace) -> None:
    """Upload a document."""
    path: Path = args.file
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
            digest = hashlib.file_digest(path.open("rb"), "sha256") if args.digest else None
    except OSError as error:
        raise InvalidRequestError(f"{path}: {error.strerror}") from None
    headers = {
        "Content-Type": by_signature(head) or "application/octet-stream",
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(path.name, safe='')}",
    }
    if digest:
        headers["Content-Digest"] = f"sha-256=:{base64.b64encode(digest.digest()).decode()}:"
    progress = Progress(path.name, size)
    target = f"/v1/orders/{quote(args.order, safe='')}/documents?kind={quote(args.kind)}"
    async with session() as http:
        document = await call(http, "POST", target, data=_read(path, progress), headers=headers)
    progress.finish()
    show(document, document["id"], as_json=args.json)


async def _read(path: Path, progress: Progress) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
            yield chunk
            progress.advance(len(chunk))


async def get(args: argparse.Namespace) -> None:
    """Read a document's content into a file."""
    if args.output is None and sys.stdout.isatty():
        raise InvalidRequestError("content is not shown on a terminal; name a file with -o FILE")
    headers = {"Access-Purpose": args.purpose}
    if args.reference:
        headers["Access-Reference"] = args.reference
    path = f"/v1/documents/{quote(args.document, safe='')}/content"
    async with session() as http, http.get(path, headers=headers) as response:
        await check(response)
        if args.output is None or args.output == "-":
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        size = await _save(response, Path(args.output))
    show({"file": args.output, "size_bytes": size}, f"{args.output}", as_json=args.json)


async def _save(response: aiohttp.ClientResponse, path: Path) -> int:
    """Write the content to a file that only its owner reads, which appears when it is whole."""
    part = path.with_name(path.name + ".partial")
    progress, size = Progress(path.name, response.content_length), 0
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidRequestError(f"{part}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                file.write(chunk)
                size += len(chunk)
                progress.advance(len(chunk))
        part.replace(path)
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror or type(error).__name__}") from None
    finally:
        progress.finish()
        part.unlink(missing_ok=True)
    return size


async def document_show(args: argparse.Namespace) -> None:
    """Show a document's metadata and why it is here."""
    async with session() as http:
        document = await call(http, "GET", f"/v1/documents/{quote(args.document, safe='')}")
    shown = (
        {**document, **{f"retention_{k}": v for k, v in document["retention"].items()}}
        if (document.get("retention"))
        else document
    )
    show(document, facts(shown), as_json=args.json)


async def document_shred(args: argparse.Namespace) -> None:
    """Put a document beyond use."""
    path = f"/v1/documents/{quote(args.document, safe='')}/actions/shred"
    async with session() as http:
        document = await call(http, "POST", path, json={"reason": args.reason})
    show(document, f"beyond use since {document['beyond_use_since']}", as_json=args.json)


async def certificate(args: argparse.Namespace) -> None:
    """Show the signed certificate of a document's destruction."""
    path = f"/v1/documents/{quote(args.document, safe='')}/certificate"
    async with session() as http:
        found = await call(http, "GET", path)
    show(found, found["note"].rstrip("\n"), as_json=args.json)


async def log_tail(args: argparse.Namespace) -> None:
    """Show the newest access records, oldest first; `--follow` goes on."""
    query = {"region": args.region, "limit": str(args.limit)}
    if args.document:
        query["document"] = args.document
    seen: set[str] = set()
    columns = ("at", "phase", "principal", "action", "document", "decision", "reason", "result")
    async with session() as http:
        while True:
            page = await call(http, "GET", "/v1/access-records", params=query)
            new = [record for record in reversed(page["data"]) if record["id"] not in seen]
            seen |= {record["id"] for record in new}
            if new or not args.follow:
                show(new, table(new, columns), as_json=args.json)
            if not args.follow:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.sleep(args.interval)
