"""`portvault put`, `get`, `show`, `shred`, `correct` and `certificate`: documents, over HTTP."""

import argparse
import asyncio
import base64
import hashlib
import hmac
import os
import sys
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import aiohttp

from vault.commands.exits import status_of_all
from vault.commands.http import call, check, json_of, session, token
from vault.commands.output import Progress, facts, fitted, show, tell, time_text
from vault.commands.parser import SUMMARIES, Tree, identity, kind, reason
from vault.domain.access import Purpose
from vault.domain.certificates import SHRED_REASONS
from vault.domain.documents import HEAD_BYTES, Ground, Kind, by_signature, readable
from vault.domain.records import HEADER as RECEIPT
from vault.errors import InvalidRequestError, UnavailableError, VaultError

# ---- Content goes in and out: `put` and `get`, one chunk at a time, with progress on a terminal.

CHUNK_BYTES = 64 * 1024
#: After how long a file is sent again that the vault could not take; the key keeps it from twice.
RETRY_SECONDS = (1.0, 4.0)


class SomeFailedError(VaultError):
    """Some of several files were not accepted."""

    def __init__(self, failures: Sequence[Exception], number: int) -> None:
        """Take what went wrong with each file that failed, and how many files there were."""
        self.exit_status = status_of_all(failures)
        super().__init__(
            f"{len(failures)} of {number} files were not accepted; of those alone, put again what "
            "failed on its way, and what was refused once it is another file"
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
        raise SomeFailedError(failures, len(args.file))


def _result(document: dict[str, Any]) -> str:
    return "was there already" if document["earlier"] else "accepted"


def _accepted(path: Path, document: dict[str, Any]) -> str:
    """Return what became of a file: what it was recognised as, and how long it is kept."""
    due_at = document.get("retention", {}).get("due_at")
    until = f"kept until {due_at[:10]}" if due_at else "kept while its order is open"
    checked = f"digest {document['digest']}, " if document["digest"] != "none" else ""
    return (
        f"{readable(path.name)}: {_result(document)} as {document['media_type']}, "
        f"{document['size_bytes']} bytes, {checked}{until}"
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


# ---- Commands for those who use the vault: orders and documents, by its HTTP API. ---------------


async def document_show(args: argparse.Namespace) -> None:
    """Show a document's metadata and why it is here."""
    async with session() as http:
        document = await call(http, "GET", f"/v1/documents/{quote(args.document, safe='')}")
    why = {f"retention_{name}": value for name, value in document.get("retention", {}).items()}
    show(document, facts({**document, **kept_by(document), **why}), as_json=args.json)


def kept_by(document: dict[str, Any]) -> dict[str, str | None]:
    """Return what holds and restricts a document, a sentence each."""
    holds = ", ".join(hold["id"] for hold in document["holds"])
    if document["held"] and not holds:
        holds = "not for your role to see"
    restricted = None
    if found := document["restriction"]:
        restricted = f"since {time_text(found['since'])}"
        # Who and why are for those who may read holds.
        if found["reason"] is not None:
            restricted += f", by {found.get('by_name') or found['by']}: {found['reason']}"
    return {"holds": holds or None, "restriction": restricted}


async def document_shred(args: argparse.Namespace) -> None:
    """Put a document beyond use."""
    path = f"/v1/documents/{quote(args.document, safe='')}/actions/shred"
    async with session() as http:
        said = {
            "ground": args.ground,
            "approval": args.approval,
            "replaced_by": args.replaced_by,
        }
        fields = {name: value for name, value in said.items() if value is not None}
        document = await call(http, "POST", path, json={"reason": args.reason, **fields})
    show(document, f"beyond use since {time_text(document['beyond_use_since'])}", as_json=args.json)


async def document_correct(args: argparse.Namespace) -> None:
    """Say that a document is of another kind."""
    path = f"/v1/documents/{quote(args.document, safe='')}/actions/correct"
    fields = {"kind": args.kind} | ({"approval": args.approval} if args.approval else {})
    async with session() as http:
        document = await call(http, "POST", path, json=fields)
    show(document, document["retention"]["reason"], as_json=args.json)


async def certificate(args: argparse.Namespace) -> None:
    """Show the signed certificate of a document's destruction."""
    path = f"/v1/documents/{quote(args.document, safe='')}/certificate"
    async with session() as http:
        found = await call(http, "GET", path)
    show(found, found["note"].rstrip("\n"), as_json=args.json, exact=True)


def add(tree: Tree) -> None:
    """Add the commands of documents."""
    put_command = tree.command(
        "put",
        put,
        SUMMARIES["put"],
        "portvault put scan.jpg --order ID --kind passport",
    )
    put_command.add_argument("file", type=Path, nargs="+", metavar="FILE")
    put_command.add_argument("--order", type=identity, required=True)
    put_command.add_argument("--kind", type=kind, required=True, help=", ".join(Kind))
    put_command.add_argument("--digest", action="store_true", help="send Content-Digest (SHA-256)")
    put_command.add_argument(
        "--again",
        action="store_true",
        help="keep a file anew that was put before; without it the same file, name, order and kind "
        "are one document for a day, so a run that was cut is started again as it was",
    )
    get_command = tree.command(
        "get",
        get,
        SUMMARIES["get"],
        "portvault get ID --purpose verify-identity -o scan.jpg",
    )
    get_command.add_argument("document", type=identity, metavar="DOCUMENT")
    get_command.add_argument(
        "--purpose",
        required=True,
        metavar="PURPOSE",
        choices=[purpose.value for purpose in Purpose],
        help=", ".join(Purpose),
    )
    get_command.add_argument("--reference", help="the case, where the purpose needs one")
    get_command.add_argument(
        "--approval", type=identity, help="the approved disclosure, where the role needs one"
    )
    get_command.add_argument(
        "-o", "--output", metavar="FILE", help="- for standard output, never a terminal"
    )
    get_command.add_argument(
        "--receipt",
        type=Path,
        metavar="FILE",
        help="keep what proves this reading recorded",
    )
    show = tree.command("show", document_show, SUMMARIES["show"], "portvault show ID")
    show.add_argument("document", type=identity, metavar="DOCUMENT")
    shred = tree.command(
        "shred",
        document_shred,
        SUMMARIES["shred"],
        "portvault shred ID --reason withdrawn",
    )
    shred.add_argument("document", type=identity, metavar="DOCUMENT")
    shred.add_argument(
        "--reason",
        type=reason(SHRED_REASONS),
        required=True,
        help=f"a case's number, or one of {', '.join(SHRED_REASONS)}; it is kept for ever",
    )
    shred.add_argument(
        "--ground",
        metavar="GROUND",
        choices=[ground.value for ground in Ground],
        help=f"{', '.join(Ground)} ({Ground.NOT_NEEDED})",
    )
    shred.add_argument(
        "--approval",
        type=identity,
        metavar="ID",
        help="of document.mistake, with --ground sent-by-mistake",
    )
    shred.add_argument(
        "--replaced-by", type=identity, metavar="ID", help="the right document of the same order"
    )
    correct = tree.command(
        "correct",
        document_correct,
        SUMMARIES["correct"],
        "portvault correct ID --kind passport",
    )
    correct.add_argument("document", type=identity, metavar="DOCUMENT")
    correct.add_argument("--kind", type=kind, required=True, help=", ".join(Kind))
    correct.add_argument(
        "--approval",
        type=identity,
        metavar="ID",
        help="of document.correct, where the floor becomes lower",
    )
    certificate_command = tree.command(
        "certificate",
        certificate,
        SUMMARIES["certificate"],
        "portvault certificate ID",
    )
    certificate_command.add_argument("document", type=identity, metavar="DOCUMENT")
