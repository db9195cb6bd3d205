"""`portvault fax`."""

import argparse
import asyncio
import hashlib
import json
import os
import re
import socket
import stat
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from vault.commands.exits import status_of_all
from vault.commands.http import EndedBeforeError, IncidentError, call, check, session
from vault.commands.output import facts, marked, show, tell
from vault.commands.parser import SUMMARIES, Tree, count, identity
from vault.domain.documents import HEAD_BYTES, by_signature
from vault.domain.faxes import ANONYMOUS, clean_facts, read_number
from vault.domain.regions import REGIONS
from vault.errors import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    InvalidRequestError,
    LimitError,
    ShreddedError,
    UnauthenticatedError,
    UnavailableError,
    VaultError,
)

# ---- HylaFAX+ and the vault: received faxes go in, queued outbound faxes go to `sendfax`. -------
#
# What HylaFAX knows of a caller is remote text and is taken as such: what is no number is not sent
# on, and nothing of it ever reaches a shell. A fax is in the vault's custody when `received` exits
# with 0, and only then may its file go.

#: A note beside a file that the vault did not take yet: what `drain` has to say of it.
NOTE_SUFFIX = ".portvault"
NOTE_BYTES_MAX = 64 * 1024
SENDFAX_SECONDS_MAX = 60.0
#: For what the vault may take a fax later that it does not take now. What is wrong with the fax or
#: the call itself stays so.
_PASSING = (
    *(UnavailableError, IncidentError, OSError, ConfigurationError),
    *(UnauthenticatedError, ForbiddenError, ConflictError, LimitError),
)
_COLUMNS = (
    *("id", "direction", "state", "pages", "from_masked", "to_masked"),
    *("received_at", "expires_at"),
)


class CalledUnknownError(InvalidRequestError):
    """HylaFAX does not say which number was called as the options have it; `query` has the rest."""

    def __init__(self, message: str, query: dict[str, str]) -> None:
        super().__init__(message)
        self.query = query


async def received(args: argparse.Namespace) -> None:
    """Take a received fax into custody; where that fails for now, leave a note for `drain`."""
    path: Path = args.qfile
    key = _key(path, args.commid)
    try:
        query = _query(args)
    except CalledUnknownError as error:
        # Options that do not fit the line are the operator's to mend: the fax waits for that.
        _leave_note(path, error.query, key)
        raise
    try:
        async with session() as http:
            fax = await _send(http, path, query, key)
    except _PASSING:
        _leave_note(path, query, key)
        raise
    # What an earlier run left is true no more.
    _note(path).unlink(missing_ok=True)
    show(fax, fax["id"], as_json=args.json)


def _query(args: argparse.Namespace) -> dict[str, str]:
    callids: list[str] = args.callid
    query = {"direction": "inbound"}
    caller = callids[0] if callids else ""
    # What is neither a number nor a known word for none is not passed on.
    number = None
    if caller.strip().lower() not in ANONYMOUS:
        number = _read_callid(caller, without_plus=args.callids_without_plus)
    query["from"] = number or "anonymous"
    if args.region:
        query["region"] = args.region
    told = {"commid": args.commid, "device": args.devid, "message": args.error_msg}
    query |= clean_facts(told)
    called = args.to or ""
    if not called and args.to_callid:
        try:
            called = _called(callids, args.to_callid, without_plus=args.callids_without_plus)
        except InvalidRequestError as error:
            raise CalledUnknownError(str(error), query) from None
    if not called:
        raise CalledUnknownError(
            "say which number was called: --to NUMBER, or --to-callid N where HylaFAX knows it",
            query,
        )
    return query | {"to": called}


def _called(callids: list[str], place: int, *, without_plus: bool) -> str:
    """Return the number that was called, of what HylaFAX knows; raises what is wrong with it."""
    if len(callids) < place:
        raise InvalidRequestError(
            f"HylaFAX gave {len(callids)} CALLIDs, and --to-callid says {place}"
        )
    number = _read_callid(callids[place - 1], without_plus=without_plus)
    if number is None:
        raise InvalidRequestError(
            f"CALLID {place} is no number with its country code and a plus sign; where the line "
            "gives country codes without one, say --callids-without-plus, else --to NUMBER"
        )
    return number


def _read_callid(text: str, *, without_plus: bool) -> str | None:
    """Return the number; nobody guesses whether the first digits are a country's or a town's."""
    plain = text.strip()
    return read_number(plain if plain.startswith("+") or not without_plus else "+" + plain)


def _key(path: Path, commid: str) -> str:
    """Return what is the same however often this file is sent, and for no other."""
    try:
        found = path.lstat()
    except OSError as error:
        raise VaultError(f"{path}: {error.strerror}") from None
    told = (socket.gethostname(), path.name, commid, found.st_size, found.st_mtime_ns)
    return "hylafax-" + hashlib.sha256(repr(told).encode()).hexdigest()


async def _send(
    http: aiohttp.ClientSession, path: Path, query: dict[str, str], key: str
) -> dict[str, Any]:
    data = await asyncio.to_thread(_read, path)
    headers = {
        "Content-Type": by_signature(data[:HEAD_BYTES]) or "application/octet-stream",
        "Idempotency-Key": key,
    }
    target = f"/v1/faxes?{urlencode(query)}"
    fax: dict[str, Any]
    try:
        fax = await call(http, "POST", target, data=data, headers=headers)
    except EndedBeforeError as error:
        # `_key` is no other file's, so this is the fax that has ended, and its receipt the answer.
        if error.lost or error.earlier is None:
            raise
        fax = await call(http, "GET", f"/v1/faxes/{quote(error.earlier, safe='')}")
    return fax


def _read(path: Path) -> bytes:
    """Return a file's content; a link is not followed, since who queues files is not trusted."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InvalidRequestError(f"{path} is not a file")
            return file.read()
    except OSError as error:
        raise VaultError(f"{path}: {error.strerror}") from None


def _note(path: Path) -> Path:
    return path.with_name(path.name + NOTE_SUFFIX)


def _leave_note(path: Path, query: dict[str, str], key: str) -> None:
    note = _note(path)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        with os.fdopen(os.open(note, flags, 0o600), "w", encoding="utf-8") as file:
            json.dump({"query": query, "key": key}, file)
    except OSError as error:
        tell(f"portvault: no note for `fax drain`: {error.strerror}")


class SomeLeftError(VaultError):
    """Some of several faxes were not taken."""

    def __init__(self, left: Mapping[str, Exception]) -> None:
        """Take what went wrong with each file that is left, by its name."""
        self.exit_status = status_of_all(list(left.values()))
        name, reason = min(left.items(), key=lambda item: item[0])
        super().__init__(f"{len(left)} faxes are left; {name}: {reason}")


async def drain(args: argparse.Namespace) -> None:
    """Send again what the vault did not take, and remove each file that it has taken now."""
    directory: Path = args.directory
    taken, left = list[str](), dict[str, Exception]()
    async with session() as http:
        for note in sorted(directory.glob(f"*{NOTE_SUFFIX}")):
            path = note.with_name(note.name.removesuffix(NOTE_SUFFIX))
            try:
                said = json.loads(_read(note)[:NOTE_BYTES_MAX])
                fax = await _send(http, path, _named(said["query"], args.to), said["key"])
            except UnavailableError:
                raise
            except (VaultError, ValueError, KeyError, TypeError) as error:
                left[path.name] = error
                continue
            # A crash between these two leaves a note without a file; the next drain names it.
            path.unlink(missing_ok=True)
            note.unlink()
            taken.append(fax["id"])
    told = "\n".join(taken) or ("nothing was taken" if left else "nothing waits")
    reasons = {name: str(error) for name, error in left.items()}
    show({"taken": taken, "left": reasons}, told, as_json=args.json)
    if left:
        raise SomeLeftError(left)


def _named(query: dict[str, str], called: str | None) -> dict[str, str]:
    """Return what a note has to say; raises where nobody says which number was called."""
    if "to" in query:
        return query
    if not called:
        raise InvalidRequestError("its note does not say which number was called; say --to NUMBER")
    return {**query, "to": called}


class SendfaxMissingError(VaultError):
    """`sendfax` cannot be run, for this fax or any other."""


async def outbound(args: argparse.Namespace) -> None:
    """Hand each waiting outbound fax to `sendfax`; what its queue accepts is delivered."""
    sent, failed = list[str](), list[str]()
    async with session() as http:
        for fax in await _waiting(http):
            try:
                done = await _hand_over(http, fax, args.sendfax)
            except (UnavailableError, UnauthenticatedError, SendfaxMissingError):
                raise
            except VaultError as error:
                # One that may not be read here holds up no other.
                tell(f"{fax}: {error}")
                done = False
            if done is not None:
                (sent if done else failed).append(fax)
    show({"sent": sent, "failed": failed}, "\n".join(sent) or "nothing sent", as_json=args.json)
    if failed:
        raise VaultError(f"{len(failed)} faxes were not sent; those that wait are tried again")


async def _waiting(http: aiohttp.ClientSession) -> list[str]:
    """Return outbound faxes that wait for an attempt, oldest first."""
    found = list[dict[str, Any]]()
    for state in ("received", "queued", "delivering"):
        cursor = ""
        while True:
            page = await call(
                http, "GET", f"/v1/faxes?direction=outbound&state={state}&limit=200{cursor}"
            )
            found += page["data"]
            if not page["next_cursor"]:
                break
            cursor = f"&cursor={page['next_cursor']}"
    now = datetime.now(UTC)
    due = [
        fax
        for fax in found
        if fax["state"] == "received" or datetime.fromisoformat(fax["next_attempt_at"]) <= now
    ]
    return [fax["id"] for fax in sorted(due, key=lambda fax: str(fax["received_at"]))]


async def _hand_over(http: aiohttp.ClientSession, fax: str, sendfax: str) -> bool | None:
    """Return whether `sendfax` took the fax; None where another run has it, or had it."""
    content = f"/v1/faxes/{fax}/content?alone=true"
    async with http.get(content, allow_redirects=False) as response:
        try:
            await check(response)
        except (ConflictError, ShreddedError):
            return None
        number = response.headers["Fax-To"]
        data = await response.read()
    # The number is E.164, as the vault checks; the job carries the fax's id, so that one that was
    # handed over twice is seen in HylaFAX's queue.
    code, said = await _run([sendfax, "-n", "-i", fax, "-d", number], data)
    # A crash here hands the fax over again once the attempt counts as lost: the called station may
    # get it twice.
    path = f"/v1/faxes/{fax}/actions/"
    if code == 0:
        await call(http, "POST", path + "deliver", json={"result": said or "sendfax"})
        return True
    await call(http, "POST", path + "fail", json={"reason": said or f"sendfax: exit {code}"})
    return False


async def _run(command: list[str], data: bytes) -> tuple[int, str]:
    """Run `sendfax` with the fax as its standard input, and return its status and last words."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise SendfaxMissingError(f"{command[0]} cannot be run: {error.strerror}") from None
    try:
        async with asyncio.timeout(SENDFAX_SECONDS_MAX):
            said, _ = await process.communicate(data)
    except TimeoutError:
        process.kill()
        await process.wait()
        return 1, "sendfax took too long"
    lines = said.decode("utf-8", "replace").strip().splitlines()
    text = clean_facts({"message": lines[-1] if lines else ""}).get("message", "")
    return process.returncode or 0, re.sub(r"\s+", " ", text)


async def fax_list(args: argparse.Namespace) -> None:
    """List the newest faxes and receipts."""
    async with session() as http:
        page = await call(http, "GET", f"/v1/faxes?limit={args.limit}")
    show(page["data"], marked(page["data"], _COLUMNS), as_json=args.json)


async def fax_show(args: argparse.Namespace) -> None:
    """Show a fax, or its receipt."""
    async with session() as http:
        fax = await call(http, "GET", f"/v1/faxes/{args.fax}")
    told = {f"fact_{name}": value for name, value in fax["facts"].items()}
    show(fax, facts({**fax, **told}), as_json=args.json)


# ---- Faxes. -------------------------------------------------------------------------------------


def add(above: Tree) -> None:
    """Add the commands of faxes."""
    tree = above.group("fax", SUMMARIES["fax"], "portvault fax list")
    received_command = tree.command(
        "received",
        received,
        "Take a fax that HylaFAX received; exits with 0 only when the vault has it.",
        "portvault fax received --to +442079460123 -- recvq/fax1.tif ttyS0 0001 '' 02079460999",
    )
    received_command.add_argument("--to", help="the number that was called, E.164")
    received_command.add_argument(
        "--to-callid", type=count, metavar="N", help="the called number is the Nth CallID"
    )
    received_command.add_argument(
        "--callids-without-plus",
        action="store_true",
        help="the line gives numbers as country code and number, without a plus sign",
    )
    received_command.add_argument(
        "--region", choices=REGIONS, help="where the number does not tell it"
    )
    received_command.add_argument("qfile", type=Path, metavar="QFILE")
    received_command.add_argument("devid", metavar="DEVID")
    received_command.add_argument("commid", metavar="COMMID")
    received_command.add_argument("error_msg", metavar="ERROR-MSG")
    received_command.add_argument("callid", nargs="*", metavar="CALLID")
    drain_command = tree.command(
        "drain",
        drain,
        "Send again what the vault did not take while it was away.",
        "portvault fax drain /var/spool/hylafax/recvq",
    )
    drain_command.add_argument(
        "directory", type=Path, nargs="?", default=Path("/var/spool/hylafax/recvq"), metavar="DIR"
    )
    drain_command.add_argument(
        "--to", help="the number that was called, for notes that do not name it"
    )
    outbound_command = tree.command(
        "outbound",
        outbound,
        "Hand waiting outbound faxes to sendfax.",
        "portvault fax outbound",
    )
    outbound_command.add_argument("--sendfax", default="sendfax", metavar="PROGRAM")
    listed = tree.command(
        "list", fax_list, "List the newest faxes and receipts.", "portvault fax list"
    )
    listed.add_argument("--limit", type=count, default=50, help="1 to 200 (50)")
    show = tree.command("show", fax_show, "Show a fax, or its receipt.", "portvault fax show ID")
    show.add_argument("fax", type=identity, metavar="FAX")
