"""
The main job on a real scan, from beginning to end, each step with what was checked.

On a home of its own that is removed afterwards, with a real PostgreSQL, `pg_dump` and `pg_restore`.
Ends with status 0 only if every step held.
"""

import argparse
import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

from keys.errors import KeysError
from vault.actions.certificates import certificate, certify
from vault.actions.expire import expire
from vault.actions.ingest import Upload, ingest
from vault.actions.keys import mark_sealed, seal
from vault.actions.log_publish import sequence_log
from vault.actions.log_records import verify_region
from vault.actions.orders import change_order, create_order
from vault.actions.read import open_content
from vault.actions.shred import purge_shredded
from vault.adapters.postgres.embedded import EmbeddedPostgres
from vault.app import login, open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal, PurposeError, Role
from vault.domain.certificates import parse_certificate
from vault.domain.documents import Document, Kind
from vault.domain.orders import Status
from vault.errors import ShreddedError, VaultError
from vault.migrate import migrate
from vault.sql import documents as documents_sql
from vault.sql.connection import connection
from vault.trials.attackers import Attacker

REGION = "uk"
DESK = Principal("demo:desk", Role.PORTING, frozenset({REGION}))
OPERATOR = Principal("demo:operator", Role.ADMIN, frozenset({REGION}))
COMPLIANCE = Principal("demo:compliance", Role.COMPLIANCE, frozenset({REGION}))
TOOL_SECONDS = 120
WAYS = (Status.IN_PROCESS, Status.SUBMITTED, Status.FOC_DATE_CONFIRMED, Status.PORTED)
#: A letter of authorisation, as far as its first bytes tell.
_PDF = b"%PDF-1.4\n%" + b"letter of authorisation " * 40
SPECIMEN = Path(__file__).parents[2] / "tests" / "samples" / "passport-uto.jpg"


class DemoError(VaultError):
    """A step did not hold."""


def step(number: int, text: str) -> None:
    """Announce a step."""
    print(f"\n{number}. {text}", flush=True)


def held(claim: bool, text: str) -> None:  # noqa: FBT001 - reads as an assertion
    """Print what was checked, or end the demonstration."""
    if not claim:
        raise DemoError(f"did not hold: {text}")
    print(f"   ok  {text}", flush=True)


def main() -> None:
    """Run the demonstration and exit."""
    parser = argparse.ArgumentParser(prog="demo", description=(__doc__ or "").strip())
    parser.add_argument("file", type=Path, nargs="?", default=SPECIMEN, help="a scan of your own")
    args = parser.parse_args()
    try:
        asyncio.run(_run(args.file.read_bytes()))
    except (VaultError, KeysError, OSError) as error:
        print(f"demo: {error}", file=sys.stderr)
        sys.exit(1)
    print("\nEvery step held.")


async def _run(scan: bytes) -> None:
    place = Path(tempfile.mkdtemp(prefix="portvault-demo-"))
    # PostgreSQL may run under another account, which has to get through to its own directory.
    place.chmod(0o711)
    config = Config(
        home=place / "home",
        regions=(REGION,),
        reversal_grace_seconds=0.0,
        key_cache_seconds=1.0,
        worker=False,
    )
    postgres = EmbeddedPostgres(config.home)
    try:
        dsn = await postgres.start()
        await migrate(dsn)
        async with open_vault(config, dsn=login(config)) as vault:
            await Demo(vault, postgres, dsn, place / "backup", scan).play()
    finally:
        await postgres.stop()
        shutil.rmtree(place, ignore_errors=True)


class Demo:
    """The steps, in order."""

    def __init__(
        self, vault: Vault, postgres: EmbeddedPostgres, dsn: str, backup: Path, scan: bytes
    ) -> None:
        self.vault, self.postgres, self.dsn, self.backup = vault, postgres, dsn, backup
        self.scan, self.letter = scan, _PDF

    async def play(self) -> None:
        """Play them all."""
        order = await self._open_order()
        passport = await self._put(order, Kind.PASSPORT, self.scan)
        letter = await self._put(order, Kind.LOA, self.letter)
        await self._read(passport)
        self._back_up()
        await self._complete(order, passport, letter)
        await self._attack_before_seal(passport, letter)
        await self._seal(passport)
        await self._attack_after_seal(passport, letter)
        await self._certify(passport)
        await self._verify_log()

    async def _open_order(self) -> UUID:
        step(1, "A porting order is opened in the region uk")
        view = await create_order(
            self.vault, DESK, region=REGION, customer="acme", numbers=["+442079460123"]
        )
        sealed = view.order.details or b"7946"
        held(b"7946" not in sealed, f"order {view.order.id}; its numbers are sealed")
        return view.order.id

    async def _put(self, order: UUID, kind: Kind, content: bytes) -> Document:
        number = 2 if kind is Kind.PASSPORT else 3
        step(number, f"A {kind.value} of {len(content)} bytes is taken into custody")
        upload = Upload(_chunks(content), None, f"{kind.value}", len(content), None)
        document = await ingest(self.vault, DESK, order, kind, upload)
        path = self.vault.config.home / "objects" / REGION / "documents" / str(document.id)
        sealed = path.read_bytes()
        held(document.custody == "stored", f"document {document.id} is stored")
        held(content[:64] not in sealed, f"what lies in the bucket ({len(sealed)} bytes) is sealed")
        return document

    async def _read(self, passport: Document) -> None:
        step(4, "The porting team reads the passport")
        try:
            await self._content(passport, None)
        except PurposeError:
            held(True, "without a purpose: refused, and the refusal is recorded")
        else:
            raise DemoError("a read without a purpose was not refused")
        content = await self._content(passport, "verify-identity")
        held(content == self.scan, "to verify the identity: the same bytes come back")

    async def _content(self, document: Document, purpose: str | None) -> bytes:
        async with open_content(
            self.vault, DESK, document.id, purpose=purpose, reference=None
        ) as content:
            return b"".join([chunk async for chunk in content.chunks])

    def _back_up(self) -> None:
        step(5, "Somebody keeps a backup: a pg_dump, and a copy of the whole bucket")
        self.backup.mkdir()
        dump = self.backup / "database.dump"
        self._tool("pg_dump", "--format=custom", f"--file={dump}", self.dsn)
        shutil.copytree(self.vault.config.home / "objects" / REGION, self.backup / "objects")
        held(dump.stat().st_size > 0, f"{dump.stat().st_size} bytes of database dumped")

    def _tool(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.postgres.bin(name)), *arguments],
            capture_output=True,
            text=True,
            timeout=TOOL_SECONDS,
            check=False,
        )
        if done.returncode:
            raise DemoError(f"{name} failed: {done.stderr.strip()}")

    async def _complete(self, order: UUID, passport: Document, letter: Document) -> None:
        step(6, "The numbers are ported, and retention shreds what is due")
        for status in WAYS:
            await change_order(self.vault, DESK, order, status)
        await expire(self.vault, REGION)
        held((await self._custody(passport)) == "shredded", "the passport is beyond use")
        held((await self._custody(letter)) == "stored", "the letter stays, as its rule says")
        try:
            await self._content(passport, "verify-identity")
        except ShreddedError:
            held(True, "reading the passport is refused: shredded")

    async def _custody(self, document: Document) -> str:
        async with connection(self.vault.pool) as conn:
            found = await documents_sql.find(conn, document.id)
        return found.custody.value if found else "nothing"

    async def _attack_before_seal(self, passport: Document, letter: Document) -> None:
        step(7, "The backup is restored beside, and attacked, before the seal")
        attack = self.dsn.replace("/portvault?", "/attack?")
        self._tool("createdb", f"--maintenance-db={self.dsn}", "attack")
        self._tool(
            "pg_restore",
            "--no-owner",
            "--no-acl",
            f"--dbname={attack}",
            str(self.backup / "database.dump"),
        )
        found = await self._attack(passport, letter)
        held(found.get(letter.id) == self.letter, "the attack works: it opens the living letter")
        held(found.get(passport.id) == self.scan, "it opens the passport: deleting is not enough")

    async def _attack(self, passport: Document, letter: Document) -> dict[UUID, bytes]:
        attacker = Attacker(REGION)
        await attacker.take_database(self.dsn.replace("/portvault?", "/attack?"))
        await attacker.take_database(self.dsn)
        attacker.take_bucket(self.backup / "objects")
        attacker.take_bucket(self.vault.config.home / "objects" / REGION)
        roots = attacker.take_custodian(self.vault.config.signing_key_path.parent)
        wraps = attacker.wraps
        print(f"       {roots} root keys, {wraps} wraps: {attacker.learn()} keys learned")
        return attacker.read([passport.id, letter.id])

    async def _seal(self, passport: Document) -> None:
        step(8, "The region is sealed: a new root generation, and the old one destroyed")
        result = await seal(self.vault, OPERATOR, REGION)
        if result is None:
            raise DemoError("there was nothing to seal")
        held(
            result.new_generation > result.old_generation,
            f"generation {result.new_generation} is in use, {result.old_generation} is destroyed",
        )
        await asyncio.sleep(self.vault.config.key_cache_seconds)
        await mark_sealed(self.vault, REGION)
        held((await self._custody(passport)) == "sealed", "the passport is irrecoverable")

    async def _attack_after_seal(self, passport: Document, letter: Document) -> None:
        step(9, "The same backup, the present database and every living root key, attacked again")
        found = await self._attack(passport, letter)
        held(passport.id not in found, "nothing leads to the passport any more")
        held(found.get(letter.id) == self.letter, "the living letter still opens: the attack works")
        content = await self._content(letter, "resolve-exception")
        held(content == self.letter, "and the vault hands out the letter as before")

    async def _certify(self, passport: Document) -> None:
        step(10, "The destruction is certified")
        await purge_shredded(self.vault, REGION)
        await sequence_log(self.vault, REGION)
        await certify(self.vault, REGION)
        shown = await certificate(self.vault, COMPLIANCE, passport.id)
        fields = parse_certificate(self.vault.signer.verify(shown.note))
        held(fields["document"] == str(passport.id), "the certificate's signature verifies")
        held(
            fields["beyond_use_since"] < fields["irrecoverable_since"],
            f"beyond use {fields['beyond_use_since']}, "
            f"irrecoverable {fields['irrecoverable_since']}",
        )
        print(f"       what the custodian promises: {fields['custodian_destroy_promise']}")

    async def _verify_log(self) -> None:
        step(11, "Compliance verifies the access log")
        await sequence_log(self.vault, REGION)
        verdict = await verify_region(self.vault, COMPLIANCE, REGION)
        held(verdict.intact, f"intact: {verdict.size} records hash to the signed root")
        held(verdict.complete, f"complete: no gaps, {verdict.in_flight} in flight")
        held(verdict.consistent, "consistent: every earlier checkpoint is a prefix")


async def _chunks(content: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 65536):
        yield content[start : start + 65536]


if __name__ == "__main__":
    main()
