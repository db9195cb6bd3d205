"""
The drill: everything that was ever written against everything that was sealed.

A vault of its own takes documents in, and shreds and seals some of them, while PostgreSQL's tools
keep a dump, a base backup, all WAL, and every version of every object is kept, too. Then an
attacker gets all of it, in every state that can be recovered, and the custodian as it is now. What
is sealed must not open, what lives must. Another attacker knows what may have been in the vault: it
must find nothing that confirms it, but every plain hash that is planted for it. At last the vault
gets a bucket that lies about what was shredded, and is restored from the old dump and from the base
backup: every living document must come back byte for byte, and each lie be named.
Meanwhile slow readers hold streams open, which must end with their token or document
(`vault/trials/drill_parts.py`).

Ends with status 0 only if every line holds.
"""

import argparse
import asyncio
import hashlib
import io
import json
import logging
import os
import secrets
import shutil
import struct
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import UUID

import asyncpg

from keys.custodians import open_custodian
from keys.errors import KeysError
from keys.nodes import top
from keys.wrap import root_context
from vault.actions.fax_delivery import deliver_fax
from vault.actions.fax_intake import Incoming, receive_fax
from vault.actions.ingest import Upload, ingest
from vault.actions.keys import mark_sealed, seal
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.orders import create_order
from vault.actions.read import open_content
from vault.actions.restore import restore
from vault.actions.shred import shred
from vault.adapters.postgres.cluster import run_tool
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.app import login, open_vault
from vault.commands.output import table
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal, Role
from vault.domain.documents import Kind
from vault.errors import NotFoundError, ShreddedError, VaultError
from vault.migrate import migrate
from vault.sql.connection import connection
from vault.trials.attackers import Attacker, Oracle
from vault.trials.drill_parts import Backups, LyingBucket, StreamLine, attack_streams

REGION = "uk"
DESK = Principal("drill:desk", Role.PORTING, frozenset({REGION}))
OPERATOR = Principal("drill:operator", Role.ADMIN, frozenset({REGION}))
GATEWAY = Principal("drill:gateway", Role.FAX_GATEWAY, frozenset({REGION}))
NUMBER, CALLER, CALLED = "+442079460123", "+442079460617", "+442079460733"
REFERENCE, CARRIER, FILENAME = "ACME-7731-XY", "Losing Carrier Ltd", "jane-doe-passport.pdf"
#: Where a plain hash is planted for the oracle, to see that it would find one.
PLANTED = ("column", "object", "object name", "log", "WAL")
#: Orders that are opened to make the tree grow by a level.
MANY_ORDERS = 70
_PDF = b"%PDF-1.4\n%drill "


@dataclass
class Line:
    """One document, and what became of it."""

    document: UUID
    content: bytes
    stored: str
    state: str = "living"
    opened: bool = False
    from_dump: str = "-"
    from_base: str = "-"

    @property
    def holds(self) -> bool:
        """Whether it is as it must be: only what is sealed is beyond everybody's reach."""
        if self.opened == (self.state == "sealed"):
            return False
        wanted = "identical" if self.state == "living" else "shredded"
        # What came after the dump has no row in it, and is brought back from the bucket.
        return self.from_base == self.from_dump == wanted


class Drill:
    """A vault, its backups, and what is known of its documents."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.config = Config(
            home=place / "home", regions=(REGION,), port=0, key_cache_seconds=0.5, worker=False
        )
        self.backups = Backups(self.config.home, place / "backups")
        self.lines = list[Line]()
        self.orders, self.fax = list[UUID](), _fax()
        #: All that the vault logged meanwhile, and a number of which nothing but a hash is stored.
        self.log = io.StringIO()
        self.control = f"+4420{secrets.randbelow(10**8):08}"
        #: What the oracle has confirmed, and which of what was planted it has missed.
        self.confirmed, self.missed = dict[str, set[str]](), set[str](PLANTED)
        self.lies = set[str]()
        self.named, self.lie_works = True, False
        self.streams = list[StreamLine]()

    async def run(self) -> bool:
        """Play everything; returns whether every line holds."""
        handler = logging.StreamHandler(self.log)
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.DEBUG)
        dsn = await self.backups.begin()
        try:
            await migrate(dsn)
            async with open_vault(self.config, dsn=login(self.config)) as vault:
                await self._live(vault, dsn)
        finally:
            await self.backups.server.stop()
            logging.getLogger().removeHandler(handler)
        await self._attack()
        bucket = LyingBucket(self.config.home / "objects" / REGION, self.victim)
        say("the bucket lies about what was shredded")
        self.lies = bucket.lie()
        await self._restore("base", self._base_home)
        await self._restore("dump", self._dump_home)
        await self._tell_with_key(bucket)
        held = all(line.holds for line in self.lines) and not self.confirmed and not self.missed
        streams = all(line.holds for line in self.streams)
        return held and streams and self.named and self.lie_works

    @property
    def victim(self) -> UUID:
        """The document that lives, and that the bucket would have shredded."""
        return next(line.document for line in self.lines if line.state == "living")

    def _config(self, what: str) -> Config:
        return replace(
            self.config,
            home=self.place / what,
            objects=f"dir:{self.config.home}/objects/{{region}}",
            custodian=self.config.custodian_uri(REGION),
        )

    async def _tell_with_key(self, bucket: LyingBucket) -> None:
        """Have the lie told by somebody who has the key: then the restore must believe it."""
        say("the same lie is told with the root's key, which must work")
        config, place = self._config("dump"), self.config.home / "objects" / REGION / "keys"
        for name in self.lies:
            (place.parent / name).unlink()
        custodian = open_custodian(config.custodian_uri(REGION))
        try:
            async with (
                self._database(config.home) as dsn,
                open_vault(config, dsn=dsn, restoring=True) as vault,
            ):
                async with connection(vault.pool) as conn:
                    head, _ = await top(conn, REGION)
                context = root_context(REGION, head.generation)
                bucket.tell_with_key(
                    await custodian.unwrap(REGION, head.generation, head.root_wrap, context)
                )
                plan = await restore(vault, OPERATOR, REGION, dry_run=True, leave_unknown=True)
        finally:
            await custodian.close()
        states = {item.document: item.state for item in plan.documents}
        self.lie_works = states[self.victim] == "shredded"

    async def _live(self, vault: Vault, dsn: str) -> None:
        """Upload, back up, shred and seal, with a point in the WAL after each step."""
        before = "before the backups"
        await self._put(vault, 6, before)
        await self._fax(vault)
        say("six documents are stored; a dump and a base backup are taken")
        await vault.keyring.mirror(REGION)
        await self.backups.take_dump(dsn)
        await self.backups.take_base(dsn)
        await self.backups.mark(dsn, "stored")
        await self._put(vault, 4, "after the backups")
        await self._shred(vault, 0, 6)
        await self.backups.mark(dsn, "shredded")
        await self._seal(vault)
        await self.backups.mark(dsn, "sealed")
        say("two are shredded and sealed; the tree grows by a level")
        for _ in range(MANY_ORDERS):
            await create_order(
                vault, DESK, region=REGION, customer="drill", numbers=["+442079460123"]
            )
        await self._put(vault, 2, "in the grown tree")
        await self._plant(dsn)
        await self.backups.mark(dsn, "grown")
        await self._shred(vault, 1, 10)
        await self._seal(vault)
        await self.backups.mark(dsn, "sealed-again")
        say("slow readers hold streams open while their token or document ends")
        self.streams = await attack_streams(vault, REGION, DESK, OPERATOR)
        say("two more are shredded and sealed, and one is only shredded")
        await self._shred(vault, 2)
        await sequence_log(vault, REGION)
        await publish_log(vault, REGION)
        await vault.keyring.mirror(REGION)
        await self.backups.mark(dsn, "end")

    async def _put(self, vault: Vault, count: int, stored: str) -> None:
        view = await create_order(
            vault,
            DESK,
            region=REGION,
            customer="drill",
            numbers=[NUMBER],
            customer_reference=REFERENCE,
            losing_carrier=CARRIER,
            idempotency_key=f"order-{len(self.lines)}",
        )
        self.orders.append(view.order.id)
        for _ in range(count):
            content = _PDF + os.urandom(20_000)
            upload = Upload(
                _chunks(content), None, FILENAME, len(content), hashlib.sha256(content).digest()
            )
            document = await ingest(
                vault,
                DESK,
                view.order.id,
                Kind.PASSPORT,
                upload,
                idempotency_key=f"document-{len(self.lines)}",
            )
            self.lines.append(Line(document.id, content, stored))

    async def _fax(self, vault: Vault) -> None:
        """Take a fax, which its delivery shreds."""
        incoming = Incoming(_chunks(self.fax), "inbound", CALLER, CALLED, size_bytes=len(self.fax))
        fax = await receive_fax(vault, GATEWAY, incoming, idempotency_key="fax-1")
        await deliver_fax(vault, GATEWAY, fax.id)

    async def _plant(self, dsn: str) -> None:
        """Leave a plain hash in the WAL and in the log, as a careless vault would."""
        digest = hashlib.sha256(self.control.encode())
        conn = await asyncpg.connect(dsn)
        try:
            await conn.execute(
                "select pg_logical_emit_message(false, 'drill', $1::bytea)", digest.digest()
            )
        finally:
            await conn.close()
        logging.getLogger(__name__).warning("the drill plants %s", digest.hexdigest())

    async def _shred(self, vault: Vault, *which: int) -> None:
        for number in which:
            await shred(vault, DESK, self.lines[number].document, "test")
            self.lines[number].state = "shredded"

    async def _seal(self, vault: Vault) -> None:
        await seal(vault, OPERATOR, REGION)
        await asyncio.sleep(self.config.key_cache_seconds)
        await mark_sealed(vault, REGION)
        for line in self.lines:
            if line.state == "shredded":
                line.state = "sealed"

    async def _attack(self) -> None:
        """Recover every state, take all of them, and try."""
        attacker, oracle = Attacker(REGION), self._oracle()
        for point in (*self.backups.points, None):
            say(f"the attacker recovers the database at {point or 'the end of the WAL'}")
            async with self.backups.recovered(self.place / "recovered", point) as dsn:
                await attacker.take_database(dsn)
                await oracle.take_database(dsn)
        say("the attacker loads the dump, and takes every version of every object")
        async with self._database(self.place / "dumped") as dsn:
            await run_tool("pg_restore", "--no-owner", "--no-acl", str(self.backups.dump), dsn=dsn)
            await attacker.take_database(dsn)
            await _plant_column(dsn, self.control)
            await oracle.take_database(dsn)
        self._guess(oracle)
        for bucket in self.backups.bucket_copies(REGION):
            attacker.take_bucket(bucket)
        roots = attacker.take_custodian(self.config.signing_key_path.parent)
        wraps, keys = attacker.wraps, attacker.learn()
        opened = attacker.read(line.document for line in self.lines)
        say(f"from {roots} root keys and {wraps} wraps it learned {keys} keys")
        for line in self.lines:
            line.opened = opened.get(line.document) == line.content

    def _oracle(self) -> Oracle:
        """Return who suspects all that was sealed, and knows what the rows say in clear."""
        sealed = {
            f"document {number}": line.content
            for number, line in enumerate(self.lines)
            if line.state == "sealed"
        }
        texts = {"number": NUMBER, "caller": CALLER, "called": CALLED, "reference": REFERENCE}
        texts |= {"carrier": CARRIER, "file name": FILENAME, "control": self.control}
        sizes = {str(len(content)) for content in (*sealed.values(), self.fax)}
        known = (REGION, "drill", "passport", "application/pdf", str(self.orders[0]), *sizes)
        details = (
            f"Details(numbers=('{NUMBER}',), customer_reference='{REFERENCE}', type=None, "
            f"losing_carrier='{CARRIER}', gaining_carrier=None)"
        )
        before = {"order, as it once was": f"('{REGION}', 'drill', {details})".encode()}
        for number, line in enumerate(self.lines):
            digest = hashlib.sha256(line.content).digest()
            size = len(line.content)
            before |= {
                f"document {number}, as it once was, in order {order}": (
                    f"(UUID('{order}'), <Kind.PASSPORT: 'passport'>, {size}, {digest!r}, None)"
                ).encode()
                for order in self.orders
            }
        return Oracle({**texts, **sealed, "fax": self.fax}, known, before)

    def _guess(self, oracle: Oracle) -> None:
        """Compare objects, logs and WAL with all that is suspected, and see what was found."""
        planted = self.place / "planted"
        planted.mkdir()
        digest = hashlib.sha256(self.control.encode())
        (planted / digest.hexdigest()).write_bytes(digest.digest())
        files = sum(
            oracle.take_files("object", directory) for directory in (self.backups.bucket, planted)
        )
        oracle.look("log", self.log.getvalue().encode())
        oracle.take_files("log", self.config.home / "postgres" / "log")
        wal = oracle.take_files("WAL", self.backups.archive)
        found = dict(oracle.found)
        for place in found.pop("control", set()):
            self.missed.discard("column" if place.startswith("column") else place)
        self.confirmed = found
        say(
            f"the oracle compared {oracle.guesses} guesses with every column, {files} objects, "
            f"{wal} files of WAL and the logs: it confirmed {len(found)} of what was sealed, and "
            f"{len(PLANTED) - len(self.missed)} of {len(PLANTED)} hashes that were planted"
        )

    @asynccontextmanager
    async def _database(self, home: Path) -> AsyncIterator[str]:
        server = EmbeddedPostgres(home)
        try:
            yield await server.start()
        finally:
            await server.stop()

    async def _base_home(self, home: Path) -> None:
        await self.backups.recover(home, None)

    async def _dump_home(self, home: Path) -> None:
        async with self._database(home) as dsn:
            await run_tool("pg_restore", "--no-owner", "--no-acl", str(self.backups.dump), dsn=dsn)

    async def _restore(self, what: str, make: Callable[[Path], Awaitable[None]]) -> None:
        """Restore one backup beside the present bucket and custodian, and read every document."""
        say(f"the vault is restored from the {what}")
        config = self._config(what)
        await make(config.home)
        config.signing_key_path.parent.mkdir(mode=0o700)
        shutil.copy2(self.config.signing_key_path, config.signing_key_path)
        async with self._database(config.home) as dsn:
            await migrate(dsn)
            async with open_vault(config, dsn=dsn, restoring=True) as vault:
                done = await restore(vault, OPERATOR, REGION, dry_run=False, leave_unknown=True)
            states = {item.document: item.state for item in done.documents}
            self.named = self.named and self.lies <= set(done.tree.passed_over if done.tree else ())
            async with open_vault(config, dsn=dsn) as vault:
                for line in self.lines:
                    found = await _read(vault, line, states.get(line.document, "-"))
                    setattr(line, f"from_{what}", found)


async def _read(vault: Vault, line: Line, state: str) -> str:
    try:
        async with open_content(
            vault, DESK, line.document, purpose="verify-identity", reference=None
        ) as content:
            data = b"".join([chunk async for chunk in content.chunks])
    except ShreddedError:
        return "shredded"
    except NotFoundError:
        # What came and went after the backup has no row in it; the restore says what it knows.
        return "shredded" if state in {"shredded", "sealed"} else state
    except (VaultError, KeysError) as error:
        return type(error).__name__
    return "identical" if data == line.content else "different"


async def _plant_column(dsn: str, control: str) -> None:
    """Leave a plain hash in a column of a database that only the attackers look at."""
    conn = await asyncpg.connect(dsn)
    try:
        await conn.execute("create table planted (digest text)")
        digest = hashlib.sha256(f"{REGION}:{control}".encode()).hexdigest()
        await conn.execute("insert into planted values ($1)", digest)
    finally:
        await conn.close()


def _fax() -> bytes:
    """Return a TIFF-F fax of one page, whose picture is noise."""
    strip = os.urandom(2000)
    tags = {256: 1728, 257: 8, 259: 4, 262: 0, 273: 8, 278: 8, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\x00" + struct.pack("<I", 8 + len(strip)) + strip + directory


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    yield content


def say(text: str) -> None:
    """Say what is going on, beside the result."""
    print(f"  {text}", file=sys.stderr, flush=True)


def main() -> None:
    """Run the drill and exit."""
    parser = argparse.ArgumentParser(prog="drill", description=(__doc__ or "").strip())
    parser.add_argument("--json", action="store_true", help="print the table as JSON")
    parser.add_argument("--keep", type=Path, help="keep what was made in this new directory")
    args = parser.parse_args()
    place = Path(args.keep or tempfile.mkdtemp(prefix="portvault-drill-")).absolute()
    if args.keep:
        place.mkdir()
    # PostgreSQL may run under another account, which has to get through to its own directory.
    place.chmod(0o711)
    drill = Drill(place)
    try:
        held = asyncio.run(drill.run())
    except (VaultError, KeysError, OSError) as error:
        print(f"drill: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        if not args.keep:
            shutil.rmtree(place, ignore_errors=True)
    rows = []
    for line in drill.lines:
        shown = {**asdict(line), "holds": line.holds}
        shown.pop("content")
        rows.append(shown)
    streams = [{**asdict(line), "holds": line.holds} for line in drill.streams]
    columns = ("document", "stored", "state", "opened", "from_dump", "from_base", "holds")
    if args.json:
        shown = {"documents": rows, "streams": streams}
        print(json.dumps(shown, indent=2, default=str))
    else:
        names = ("document", "ended_by", "size_bytes", "got_before", "got_after", "whole", "holds")
        print("\n" + table(rows, columns) + "\n\n" + table(streams, names))
    for suspect, places in sorted(drill.confirmed.items()):
        print(f"drill: {suspect} is confirmed by {', '.join(sorted(places))}", file=sys.stderr)
    for missed in sorted(drill.missed):
        print(f"drill: the oracle missed the hash that was planted: {missed}", file=sys.stderr)
    for holds, what in (
        (drill.named, "a lie of the bucket was not named"),
        (drill.lie_works, "the lie told with the key was not believed: it proves nothing"),
    ):
        if not holds:
            print(f"drill: {what}", file=sys.stderr)
    if not held:
        print("drill: not every line holds", file=sys.stderr)
        sys.exit(1)
    print("\nEvery line holds." if not args.json else "", file=sys.stderr)


if __name__ == "__main__":
    main()
