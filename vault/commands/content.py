"""Content goes in and out: `put` and `get`, one chunk at a time, with progress on a terminal."""

import argparse
import asyncio
import base64
import hashlib
import hmac
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import aiohttp

from vault.commands.http import check, json_of, session, token
from vault.commands.output import Progress, fitted, show, tell
from vault.domain.documents import HEAD_BYTES, by_signature, readable
from vault.domain.records import HEADER as RECEIPT
from vault.errors import InvalidRequestError, UnavailableError, VaultError

CHUNK_BYTES = 64 * 1024
#: After how long a file is sent again that the vault could not take; the key keeps it from twice.
RETRY_SECONDS = (1.0, 4.0)


class SomeFailedError(VaultError):
    """Some of several files were not accepted."""

    def __init__(self, failed: int, number: int) -> None:
        super().__init__(
            f"{failed} of {number} files were not accepted; of those alone, put again what failed "
            "on its way, and what was refused once it is another file"
        )


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """Name the file in what goes wrong with it; the network's errors do not pass through here."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise VaultError(
            f"{readable(str(path))}: {error.strerror or type(error).__name__}"
        ) from None


async def put(args: argparse.Namespace) -> None:
    """Upload documents, one after the other; each has its result, and one that fails stops none."""
    target = f"/v1/orders/{quote(args.order, safe='')}/documents?kind={quote(args.kind)}"
    if len(args.file) == 1:
        (path,) = args.file
        document = await _put(path, target, readable(path.name), args)
        if not args.json and sys.stderr.isatty():
            tell(_accepted(path, document))
        show(document, document["id"], as_json=args.json)
        return
    results, failures = list[dict[str, Any]](), list[Exception]()
    for number, path in enumerate(args.file, start=1):
        what = f"{number}/{len(args.file)} {readable(path.name)}"
        try:
            document = await _put(path, target, what, args)
        except (VaultError, OSError) as error:
            failures.append(error)
            results.append({"file": str(path), "result": "failed", "detail": str(error)})
            said = str(error).removeprefix(f"{readable(str(path))}: ")
            line = f"{'failed':36}  {readable(path.name)}: {said}"
        else:
            results.append({"file": str(path), "result": _result(document), "document": document})
            line = f"{document['id']}  {_accepted(path, document)}"
        if not args.json:
            print(fitted(line), flush=True)
    if args.json:
        show(results, "", as_json=True)
    if failures:
        raise SomeFailedError(len(failures), len(args.file))


def _result(document: dict[str, Any]) -> str:
    return "was there already" if document["earlier"] else "accepted"


def _accepted(path: Path, document: dict[str, Any]) -> str:
    """Return what became of a file: what it was recognised as, and how long it is kept."""
    due_at = document.get("retention", {}).get("due_at")
    until = f"kept until {due_at[:10]}" if due_at else "kept while its order is open"
    return (
        f"{readable(path.name)}: {_result(document)} as {document['media_type']}, "
        f"{document['size_bytes']} bytes, digest {document['digest']}, {until}"
    )


async def _put(path: Path, target: str, what: str, args: argparse.Namespace) -> dict[str, Any]:
    """
    Upload a file; where it is sent again, at once or by another run, it is kept once.

    Returns the document; `earlier` is true of one that was there before this run.
    """
    with _file_errors(path):
        if not path.is_file():
            path.stat()
            raise InvalidRequestError(f"{readable(str(path))} is not a file")
        file = path.open("rb")
    with file:
        with _file_errors(path):
            size, digest, headers = await asyncio.to_thread(_describe, path, file)
        if args.digest:
            headers["Content-Digest"] = f"sha-256=:{base64.b64encode(digest).decode()}:"
        headers["Idempotency-Key"] = (
            str(uuid.uuid4()) if args.again else request_key(token(), target, path.name, digest)
        )
        for wait_seconds in (*RETRY_SECONDS, None):
            try:
                async with session() as http:
                    with Progress(what, size) as progress:
                        body = _read(path, file, size, progress)
                        async with http.post(
                            target, data=body, headers=headers, allow_redirects=False
                        ) as response:
                            document: dict[str, Any] = await json_of(response)
                        # What an attempt of this run had brought is not there from before.
                        document["earlier"] &= wait_seconds == RETRY_SECONDS[0]
                        return document
            except UnavailableError:
                if wait_seconds is None:
                    raise
                await asyncio.sleep(wait_seconds)
                file.seek(0)
    raise AssertionError


def request_key(secret: str, target: str, name: str, digest: bytes) -> str:
    """
    Return what tells the upload of a file from all others, in every run with the same token.

    The vault keeps it for a day, so it says nothing of the content to who has not the token.
    """
    said = b"\0".join((target.encode(), os.fsencode(name), digest))
    return hmac.digest(secret.encode(), b"portvault/put/v1\0" + said, "sha256").hex()


def _describe(path: Path, file: BufferedReader) -> tuple[int, bytes, dict[str, str]]:
    """Return a file's size, its SHA-256 and the headers of its upload."""
    size = os.fstat(file.fileno()).st_size
    name = readable(path.name)
    headers = {
        "Content-Type": by_signature(file.read(HEAD_BYTES)) or "application/octet-stream",
        "Content-Length": str(size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
    }
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").digest()
    file.seek(0)
    return size, digest, headers


async def _read(path: Path, file: BinaryIO, size: int, progress: Progress) -> AsyncIterator[bytes]:
    """Yield exactly the bytes that were announced; a file that shrank meanwhile is an error."""
    left = size
    while left:
        with _file_errors(path):
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, left))
        if not chunk:
            raise VaultError(f"{path} became shorter while it was sent; send it again")
        left -= len(chunk)
        yield chunk
        progress.advance(len(chunk))


async def get(args: argparse.Namespace) -> None:
    """Read a document's content into a file, or to standard output where that is no terminal."""
    to_stdout = args.output in (None, "-")
    if to_stdout and sys.stdout.isatty():
        raise InvalidRequestError("content is not shown on a terminal; name a file with -o FILE")
    if to_stdout and args.json:
        raise InvalidRequestError("--json has no room beside the content; name a file with -o FILE")
    headers = {"Access-Purpose": args.purpose}
    if args.reference:
        headers["Access-Reference"] = args.reference
    if args.approval:
        headers["Access-Approval"] = args.approval
    path = f"/v1/documents/{quote(args.document, safe='')}/content"
    async with (
        session() as http,
        http.get(path, headers=headers, allow_redirects=False) as response,
    ):
        await check(response)
        if args.receipt is not None:
            with _file_errors(args.receipt):
                args.receipt.write_text(response.headers[RECEIPT] + "\n", encoding="ascii")
        if to_stdout:
            await _copy(response, sys.stdout.buffer, Path("standard output"))
            return
        size = await save(response, Path(args.output))
    show({"file": args.output, "size_bytes": size}, args.output, as_json=args.json)


async def save(response: aiohttp.ClientResponse, path: Path) -> int:
    """Write the content to a file that only its owner reads, which appears when it is whole."""
    part = path.with_name(path.name + ".partial")
    with _file_errors(part):
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise VaultError(
                f"{part} is in the way: another command writes it, or one was killed; remove it"
            ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            size = await _copy(response, file, path)
        with _file_errors(path):
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return size


async def _copy(response: aiohttp.ClientResponse, file: BinaryIO, path: Path) -> int:
    size = 0
    with Progress(readable(path.name), response.content_length) as progress:
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            with _file_errors(path):
                file.write(chunk)
            size += len(chunk)
            progress.advance(len(chunk))
        with _file_errors(path):
            file.flush()
    return size
