"""What was sent to the database and rolled back is in its WAL, and opens nothing after a seal."""

import asyncio
import os
from contextlib import suppress
from itertools import product
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest

from keys.errors import IntegrityError
from keys.stream import DataKey
from tests.fixtures_server import OPERATOR, PORTING, in_pieces
from tests.retention_house import new_order, put
from vault.actions.ingest import Upload, collect_abandoned, ingest
from vault.actions.keys import seal
from vault.actions.orders import create_order, show_order
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.documents import Kind
from vault.domain.orders import check_details, details_context, encode_details
from vault.errors import VaultError
from vault.migrate import migrate
from vault.trials.attackers import Attacker, without_headers
from vault.trials.drill_parts import Backups

REGION = "uk"
#: The keys of uploads are refused at the commit, after they were written; time to copy the object.
REFUSE = """
    create function refuse() returns trigger language plpgsql as $$
    begin
        perform pg_sleep(0.5);
        raise exception 'the commit fails';
    end $$;
    create constraint trigger refuse after insert on data_key deferrable initially deferred
        for each row execute function refuse();
"""
ACCEPT = "drop trigger refuse on data_key; drop function refuse()"


async def attack(
    backups: Backups, config: Config, dsn: str, documents: list[UUID]
) -> dict[UUID, bytes]:
    """Return what an attacker with all WAL and objects opens by what the custodian holds now."""
    attacker = Attacker(REGION)
    await attacker.take_database(dsn)
    backups.keep_objects()
    for bucket in backups.bucket_copies(REGION):
        attacker.take_bucket(bucket)
    for segment in backups.segments():
        assert attacker.take_wal(segment.read_bytes()) >= 0
    attacker.take_custodian(config.signing_key_path.parent)
    attacker.learn()
    return attacker.read(documents)


async def upload(vault: Vault, order: UUID, content: bytes) -> None:
    """Take a document in."""
    sent = Upload(in_pieces(content), None, None, len(content), None)
    await ingest(vault, PORTING, order, Kind.LOA, sent)


DETAILS = check_details(["+442079460199"], None)


def details_in(attacker: Attacker, wal: list[bytes], order: UUID) -> bool:
    """Whether some key that was learned opens the details of an order anywhere in the WAL."""
    context, plain = details_context(REGION, order), encode_details(DETAILS)
    keys = [DataKey(key) for key in attacker.keys]
    size = len(keys[0].encrypt(plain, context))
    for segment in wal:
        at = segment.find(order.bytes)
        while at >= 0:
            near = segment[at : at + 600]
            for start, key in product(range(max(len(near) - size, 0)), keys):
                with suppress(IntegrityError):
                    return key.decrypt(near[start : start + size], context) == plain
            at = segment.find(order.bytes, at + 1)
    return False


async def test_an_order_that_was_rolled_back_opens_nothing_after_a_seal(tmp_path: Path) -> None:
    """Its key and its details are in the WAL, and until the seal they open."""
    tmp_path.chmod(0o711)
    config = Config(home=tmp_path / "home", regions=(REGION,), worker=False, key_cache_seconds=0.2)
    backups = Backups(config.home, tmp_path / "backups")
    dsn = await backups.begin()
    try:
        await migrate(dsn)
        owner = await asyncpg.connect(dsn)
        async with open_vault(config, dsn=dsn) as vault:
            living = await new_order(vault)
            assert not await vault.keyring.needs_seal(REGION)
            await owner.execute(REFUSE)
            with pytest.raises(asyncpg.PostgresError):
                await create_order(
                    vault, PORTING, region=REGION, customer="acme", numbers=list(DETAILS.numbers)
                )
            await owner.execute(ACCEPT)
            (order,) = [row["scope"] for row in await owner.fetch("select scope from key_dirty")]
            assert await owner.fetchval("select count(*) from porting_order") == 1
            for point, found in (("rolled-back", True), ("sealed", False)):
                if point == "sealed":
                    assert await vault.keyring.needs_seal(REGION)
                    await seal(vault, OPERATOR, REGION)
                await backups.mark(dsn, point)
                attacker = Attacker(REGION)
                # What the attacker looks for beside the id of its scope in the WAL.
                attacker.look_for(order, order)
                await attacker.take_database(dsn)
                segments = [path.read_bytes() for path in backups.segments()]
                for segment in segments:
                    attacker.take_wal(segment)
                segments = [without_headers(segment) for segment in segments]
                attacker.take_custodian(config.signing_key_path.parent)
                attacker.learn()
                assert details_in(attacker, segments, order) is found, point
            view = await show_order(vault, PORTING, living)
            assert view.details is not None
        await owner.close()
    finally:
        await backups.server.stop()


@pytest.mark.parametrize("crashed", [False, True], ids=["refused", "cut-off"])
async def test_an_upload_that_was_rolled_back_opens_nothing_after_a_seal(
    tmp_path: Path, *, crashed: bool
) -> None:
    """Its wrap and its object are there, and until the seal they open; the order lives on."""
    tmp_path.chmod(0o711)
    config = Config(home=tmp_path / "home", regions=(REGION,), worker=False, key_cache_seconds=0.2)
    backups = Backups(config.home, tmp_path / "backups")
    dsn = await backups.begin()
    content = b"%PDF-1.4\n%" + os.urandom(3000)
    try:
        await migrate(dsn)
        owner = await asyncpg.connect(dsn)
        async with open_vault(config, dsn=dsn) as vault:
            order = await new_order(vault)
            living = await put(vault, order, Kind.LOA)
            await seal(vault, OPERATOR, REGION, force=True)
            assert not await vault.keyring.needs_seal(REGION)
            await owner.execute(REFUSE)
            sending = asyncio.create_task(upload(vault, order, content))
            objects = config.home / "objects" / REGION / "documents"
            while not (left := {path.name for path in objects.glob("*")} - {str(living)}):
                await asyncio.sleep(0.01)
            # A bucket keeps versions: what is purged later was there.
            backups.keep_objects()
            (document,) = map(UUID, left)
            if crashed:
                while not sending.done():
                    await owner.execute("update document set received_at = '2020-01-01'")
                    # As if the process had ended here: its row stays, for whoever collects.
                    await owner.execute(
                        "create table if not exists stays as select * from document where id = $1",
                        document,
                    )
                    await asyncio.sleep(0.05)
            with pytest.raises((VaultError, asyncpg.PostgresError)):
                await sending
            await owner.execute(ACCEPT)
            if crashed:
                await owner.execute("delete from key_dirty")
                await owner.execute("insert into document select * from stays")
                await owner.execute("drop table stays")
                assert await collect_abandoned(vault, REGION) == 1
            await backups.mark(dsn, "rolled-back")
            asked = [living, document]
            before = await attack(backups, config, dsn, asked)
            assert before.get(document) == content, "the attacker finds it in the WAL"
            assert await vault.keyring.needs_seal(REGION)
            await seal(vault, OPERATOR, REGION)
            await backups.mark(dsn, "sealed")
            after = await attack(backups, config, dsn, asked)
            assert set(after) == {living}
        await owner.close()
    finally:
        await backups.server.stop()


@pytest.mark.parametrize("on_first", [10, 20])
def test_what_crosses_a_page_of_the_wal_is_found(on_first: int) -> None:
    """The next page begins with a header, in the middle of an id."""
    attacker, document, order = Attacker(REGION), UUID(int=3**80), UUID(int=5**55)
    attacker.look_for(document, order)
    record = document.bytes + order.bytes + bytes(range(1, 100))
    first = (bytes(40) + bytes(8192))[: 8192 - on_first] + record[:on_first]
    assert attacker.take_wal(first + b"\xff" * 24 + record[on_first:] + bytes(200)) == 1


async def test_a_segment_of_the_archive_is_all_there(tmp_path: Path) -> None:
    """However slowly it comes: its name is there when all of it is."""
    tmp_path.chmod(0o711)
    (tmp_path / "home").mkdir(mode=0o711)
    backups = Backups(tmp_path / "home", tmp_path / "backups")
    dsn = await backups.begin()
    try:
        owner = await asyncpg.connect(dsn)
        said = await owner.fetchval("show archive_command")
        await owner.execute(f"alter system set archive_command = '{slowly(said)}'")
        await owner.execute("select pg_reload_conf()")
        await owner.close()
        await backups.mark(dsn, "a")
        assert {path.stat().st_size for path in backups.segments()} == {16 << 20}
    finally:
        await backups.server.stop()


def slowly(command: str) -> str:
    """Return the command with a `cp` that has half of the file there for a second."""
    half = 'cp() { head -c 8000000 "$1" > "$2"; sleep 1; command cp "$1" "$2"; };'
    return f"{half} {command}"
