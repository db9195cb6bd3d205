"""A data key's row that was lost and that no segment has is taken from a backup, where it opens."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from keys.damage import DamagedError
from tests.fixtures_process import VaultProcess
from tests.fixtures_server import OPERATOR, SAMPLES, Api
from tests.fixtures_telefax import Faxes
from vault.actions.keys import seal, verify_keys
from vault.actions.repair import Repaired, repair
from vault.adapters.postgres.cluster import run_tool
from vault.adapters.postgres.dump import DumpColumns
from vault.context import Vault

SCAN = SAMPLES / "passport-uto.jpg"
_WRAPPED = "select scope, scope_epoch, wrap from data_key"


class Ground:
    """A vault whose mirror holds nothing of what comes after it."""

    def __init__(self, api: Api, vault: Vault, faxes: Faxes, place: Path) -> None:
        self.api, self.vault, self.faxes, self.place = api, vault, faxes, place

    async def document(self, order: str) -> UUID:
        """Put a document that no other has."""
        status, body = await self.api.put(order, SCAN.read_bytes())
        assert status == 201, body
        return UUID(body["id"])

    async def shred(self, document: UUID) -> None:
        """Shred a document."""
        path, reason = f"/v1/documents/{document}/actions/shred", {"reason": "test"}
        status, _, _ = await self.api.call("POST", path, json=reason, role="dpo")
        assert status == 200

    async def dump(self, name: str = "dump") -> Path:
        """Dump the database."""
        file = self.place / name
        await run_tool(
            "pg_dump", "--format=custom", f"--file={file}", dsn=self.vault.config.database
        )
        return file

    async def lose(self, *things: UUID) -> None:
        """Lose the rows of data keys, and see that the vault says so and seals no more."""
        gone = "delete from data_key where id = any($1)"
        assert await self.vault.pool.execute(gone, things) == f"DELETE {len(things)}"
        self.vault.keyring.forget()
        walk = await verify_keys(self.vault, OPERATOR, "uk")
        assert {item.id for item in walk.findings} == {str(thing) for thing in things}

    async def repaired(self, file: Path | None) -> Repaired:
        """Repair from a dump, and see that the dry run has said the same and changed nothing."""
        backup = None
        if file is not None:
            backup = DumpColumns(file)
            await backup.open()
        rows = await self.rows()
        dry = await repair(self.vault, OPERATOR, "uk", dry_run=True, backup=backup)
        assert await self.rows() == rows
        real = await repair(self.vault, OPERATOR, "uk", dry_run=False, backup=backup)
        assert dry == real
        self.vault.keyring.forget()
        return real

    async def rows(self) -> list[Any]:
        """Return the rows of all data keys."""
        return await self.vault.pool.fetch(
            "select id, region, scope, scope_epoch, wrap from data_key order by id"
        )

    async def left(self, file: Path, thing: UUID) -> str:
        """See that a repair leaves one lost key as it is; returns what it says is to be done."""
        (mend,) = (await self.repaired(file)).mends
        assert (mend.damage.id, mend.damage.detail) == (str(thing), "is missing")
        assert not mend.mended
        assert await self._count(thing) == 0
        assert "portvault restore" in mend.how or "was shredded" in mend.how
        return mend.how

    async def _count(self, thing: UUID) -> int:
        count: int = await self.vault.pool.fetchval(
            "select count(*) from data_key where id = $1", thing
        )
        return count


@pytest.fixture
async def ground(api: Api, vault: Vault, faxes: Faxes, tmp_path: Path) -> Ground:
    """Mirror the trees as they are before anything came."""
    await vault.keyring.mirror("uk")
    return Ground(api, vault, faxes, tmp_path)


async def test_a_row_that_no_segment_has_comes_from_a_backup(ground: Ground, fax: bytes) -> None:
    """Of a document, a fax and an order; then seals go on, and a second repair finds nothing."""
    order = await ground.api.order()
    document = await ground.document(order)
    _, sent = await ground.faxes.send(fax)
    things = {document, UUID(sent["id"]), UUID(order)}
    file = await ground.dump()
    before = await ground.rows()
    await ground.lose(*things)
    with pytest.raises(DamagedError, match="is missing"):
        await seal(ground.vault, OPERATOR, "uk", force=True)
    (how,) = {mend.how for mend in (await ground.repaired(None)).mends}
    assert "portvault repair --backup FILE" in how
    done = await ground.repaired(file)
    assert {mend.damage.id for mend in done.mends} == {str(thing) for thing in things}
    assert {(mend.mended, mend.how) for mend in done.mends} == {
        (True, "taken from the backup, where it opens under its scope")
    }
    assert await ground.rows() == before
    assert await seal(ground.vault, OPERATOR, "uk", force=True) is not None
    assert (await ground.api.get(str(document)))[1] == SCAN.read_bytes()
    assert (await ground.faxes.content(sent["id"]))[0] == 200
    assert (await ground.api.call("GET", f"/v1/orders/{order}"))[0] == 200
    assert (await ground.repaired(file)).mends == ()
    said = "select count(*) from access_record where action = 'damage.repair' and reason = 'mended'"
    assert await ground.vault.pool.fetchval(said) == len(things)


async def test_a_wrap_that_does_not_open_comes_from_a_backup(ground: Ground) -> None:
    """Its row is there, and no segment has another."""
    document = await ground.document(await ground.api.order())
    file = await ground.dump()
    await ground.vault.pool.execute(
        "update data_key set wrap = set_byte(wrap, 20, get_byte(wrap, 20) # 1) where id = $1",
        document,
    )
    (mend,) = (await ground.repaired(file)).mends
    assert (mend.damage.column, mend.mended) == ("wrap", True)
    assert (await ground.api.get(str(document)))[0] == 200


async def test_a_backup_from_before_a_seal_of_the_scope_is_too_old(ground: Ground) -> None:
    """Its wrap opens nothing any more: it is said so, with what is left, and a shred ends it."""
    order = await ground.api.order()
    document, other = await ground.document(order), await ground.document(order)
    file = await ground.dump("old")
    late = await ground.document(order)
    for path in (ground.vault.config.home / "objects" / "uk" / "keys").iterdir():
        path.unlink()
    await ground.shred(other)
    assert await seal(ground.vault, OPERATOR, "uk") is not None
    newer = await ground.dump("newer")
    for path in (ground.vault.config.home / "objects" / "uk" / "keys").iterdir():
        path.unlink()
    await ground.vault.pool.execute("delete from key_mirror where region = 'uk'")
    for thing, words in ((document, "too old for this row"), (late, "name a later backup")):
        await ground.lose(thing)
        how = await ground.left(file, thing)
        assert words in how
        assert "shred what it is the key of, as lost" in how
        assert [mend.mended for mend in (await ground.repaired(newer)).mends][:1] == [True]
    await ground.lose(document)
    await ground.shred(document)
    assert await seal(ground.vault, OPERATOR, "uk") is not None
    assert (await ground.repaired(file)).mends == ()


@pytest.mark.parametrize("sealed", [False, True])
@pytest.mark.parametrize("after", ["the loss", "the backup"])
async def test_what_was_shredded_since_never_comes_back(
    ground: Ground, after: str, *, sealed: bool
) -> None:
    """Though its row says that it is stored, and the backup's wrap opens until the next seal."""
    vault, thing = ground.vault, await ground.document(await ground.api.order())
    metadata = await vault.pool.fetchval("select metadata from document where id = $1", thing)
    file = await ground.dump()
    if after == "the loss":
        await ground.lose(thing)
    await ground.shred(thing)
    if sealed:
        assert await seal(vault, OPERATOR, "uk") is not None
    assert (await ground.repaired(file)).mends == ()
    # As whoever writes rows would have it: the tombstones are gone, and it is in custody again.
    await vault.pool.execute("delete from key_gone")
    await vault.pool.execute(
        """
        update document set custody = 'stored', metadata = $2, shredded_at = null,
            last_generation = null, sealed_at = null where id = $1
        """,
        thing,
        metadata,
    )
    assert await ground.left(file, thing) == "it was shredded, and is not put back"


async def test_what_a_backup_says_of_a_row_is_not_believed(
    ground: Ground, empty_database: str
) -> None:
    """Another row's wrap, another scope, epoch or region, junk: nothing but its own wrap opens."""
    order, elsewhere = await ground.api.order(), await ground.api.order()
    thing, other = await ground.document(order), await ground.document(order)
    stranger = await ground.document(elsewhere)
    good = await ground.dump("good")
    options = ("--no-owner", "--no-acl", f"--dbname={empty_database}")
    await run_tool("pg_restore", *options, str(good), dsn=empty_database)
    conn = await asyncpg.connect(empty_database)
    own, beside, far = [
        dict((await conn.fetch(f"{_WRAPPED} where id = $1", one))[0])
        for one in (thing, other, stranger)
    ]
    await conn.execute("alter table data_key drop constraint data_key_scope_scope_epoch_fkey")
    for column in ("wrap", "scope", "scope_epoch"):
        await conn.execute(f"alter table data_key alter {column} type text using {column}::text")
    unreadable, too_old = "does not open under its scope", "too old for this row"
    await ground.lose(thing)
    for number, (values, words) in enumerate(
        [
            ({"wrap": beside["wrap"]}, unreadable),
            ({"wrap": far["wrap"]}, unreadable),
            (far, unreadable),
            ({"wrap": b""}, unreadable),
            ({"wrap": own["wrap"] + b"1"}, unreadable),
            ({"wrap": "junk"}, unreadable),
            ({"wrap": "\\xzz"}, unreadable),
            ({"scope": "junk"}, unreadable),
            ({"scope": UUID(int=5)}, too_old),
            ({"scope_epoch": 9**40}, too_old),
            ({"scope_epoch": own["scope_epoch"] + 1}, too_old),
            ({"scope_epoch": "one"}, unreadable),
        ]
    ):
        row = {**own, **values}
        wrap = row["wrap"] if isinstance(row["wrap"], str) else f"\\x{row['wrap'].hex()}"
        forge = "update data_key set wrap = $2, scope = $3, scope_epoch = $4 where id = $1"
        await conn.execute(forge, thing, wrap, str(row["scope"]), str(row["scope_epoch"]))
        file = ground.place / f"forged-{number}"
        await run_tool("pg_dump", "--format=custom", f"--file={file}", dsn=empty_database)
        assert words in await ground.left(file, thing), values
    await conn.close()
    assert (await ground.repaired(good)).left == 0
    assert (await ground.api.get(str(thing)))[0] == 200


async def test_a_repair_that_is_killed_has_put_back_nothing_and_is_repeated(ground: Ground) -> None:
    """Killed when one of two rows is put back; then `--json` says both, and the region seals."""
    order = await ground.api.order()
    thing = await ground.document(order)
    file, config = await ground.dump(), ground.vault.config
    rows = {row["id"]: row for row in await ground.rows()}
    await ground.lose(thing, UUID(order))
    process = VaultProcess(config.home, database=config.database, regions="uk,sg")
    repairs = ("repair", "--region", "uk", "--backup", str(file))
    conn = await asyncpg.connect(config.database)
    try:
        holds = conn.transaction()
        await holds.start()
        # The order's key comes last, and waits for this one.
        insert = "insert into data_key (id, region, scope, scope_epoch, wrap) values "
        await conn.execute(f"{insert} ($1, $2, $3, $4, $5)", *rows[UUID(order)])
        killed = await process.command(*repairs)
        waits = (
            "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = "
        )
        async with asyncio.timeout(30):
            while not await ground.vault.pool.fetchval(f"{waits} current_database()"):
                await asyncio.sleep(0.05)
        killed.kill()
        await killed.wait()
        await holds.rollback()
    finally:
        await conn.close()
    assert {row["id"] for row in await ground.rows()} == {*rows} - {thing, UUID(order)}
    (dry,) = await process.json(*repairs, "--dry-run")
    (real,) = await process.json(*repairs)
    assert (dry["dry_run"], dry["left"], real["left"]) == (True, 0, 0)
    assert dry["damages"] == real["damages"]
    assert {one["id"]: one["how"] for one in real["damages"]} == dict.fromkeys(
        (str(thing), order), "taken from the backup, where it opens under its scope"
    )
    assert {row["id"]: row for row in await ground.rows()} == rows
    ground.vault.keyring.forget()
    assert (await ground.api.get(str(thing)))[0] == 200
    assert await seal(ground.vault, OPERATOR, "uk", force=True) is not None
