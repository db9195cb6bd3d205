"""What is damaged at rest is found, named and mended; and what was shredded stays so."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from keys.damage import DamagedError
from tests.fixtures_server import OPERATOR, SAMPLES, Api
from tests.fixtures_telefax import Faxes
from vault.actions.keys import seal, verify_keys
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.look import look_at_rest
from vault.actions.order_details import renew_index
from vault.actions.repair import Repaired, repair
from vault.adapters.postgres.cluster import run_tool
from vault.adapters.postgres.dump import DumpColumns
from vault.commands.doctor_looks import damage as doctor_damage
from vault.context import Vault
from vault.sql import log_published as published_sql
from vault.sql.connection import Pool
from vault.sql.documents import LivingRows

#: Each column of bytes that is mended, and from what.
MENDED = {
    ("key_tree", "root_wrap"): "segment",
    ("key_node", "page"): "mirror",
    ("data_key", "wrap"): "mirror",
    ("key_generation", "canary"): "made anew",
    ("key_mirror", "digest"): "new base",
    ("document", "stream_header"): "its object",
    ("fax", "stream_header"): "its object",
    ("number_index", "mac"): "details",
}
#: Each that is named, with what to do: there is no other copy of it here.
NAMED = {
    ("document", "metadata"): "backup",
    ("fax", "metadata"): "sender",
    ("porting_order", "details"): "backup",
}
#: Hashes of what somebody brings: where one is damaged it is refused, as any other that is unknown.
REFUSED = {
    ("token", "secret_hash"),
    ("token", "certificate"),
    ("session", "secret_hash"),
    ("break_glass", "secret_hash"),
    ("idempotency", "fingerprint"),
    ("fax", "fingerprint"),
    # The start says that a migration is not the one that was applied.
    ("migration", "sha256"),
}
#: Kept for minutes, and what it kept from being taken twice is taken again.
TAKEN_AGAIN = {("taken_once", "hash")}
#: The log's: nobody changes its rows; a checkpoint's are only to save time, and are made anew.
LOG = {("log_leaf", "leaf_hash"), ("log_checkpoint", "hashes")}
#: Each kind of object in a bucket, and what finds it damaged.
OBJECTS = {
    "documents/": "named",
    "keys/": "mended",
    "log/tile/": "mended",
    "log/checkpoint": "passed over, and named by the doctor",
    "store.json": "refused at every start, and by the doctor",
}


FLIP = "set_byte({0}, 20, get_byte({0}, 20) # 1)"


@dataclass
class Place:
    """A vault with one thing of each sort in it, all of them sound."""

    api: Api
    vault: Vault
    faxes: Faxes
    order: str
    document: str
    fax: str

    @property
    def objects(self) -> Path:
        """Where the objects of the region lie."""
        return self.vault.config.home / "objects" / "uk"

    async def answers(self) -> dict[str, int]:
        """Return how the document, the fax and the order are answered."""
        self.vault.keyring.forget()
        shown, _, _ = await self.api.call("GET", f"/v1/orders/{self.order}")
        answers = {
            "document": (await self.api.get(self.document))[0],
            "fax": (await self.faxes.content(self.fax))[0],
            "porting_order": shown,
        }
        await self.vault.damage_watch.note()
        return answers

    async def found(self) -> str:
        """Return all that the doctor, `keys verify` and the worker's whole look say."""
        self.vault.keyring.forget()
        await self.vault.damage_watch.note()
        await self.vault.pool.execute("delete from damage; delete from damage_look")
        verdict, said = await doctor_damage(self.vault.config, ["uk"])
        walk = await verify_keys(self.vault, OPERATOR, "uk")
        # Of keys the doctor knows at once, of all else what the worker has found.
        assert (verdict == "fail") == bool(walk.findings), said
        for _ in range(20):
            await look_at_rest(self.vault, "uk")
            if await self.vault.pool.fetchval("select ended_at from damage_look"):
                break
        rows = await self.vault.pool.fetch("select place, detail from damage")
        if not walk.findings and not rows:
            return ""
        verdict, said = await doctor_damage(self.vault.config, ["uk"])
        assert verdict == "fail"
        return said

    async def repaired(self) -> Repaired:
        """Repair, and see that the dry run has said the same before."""
        dry = await repair(self.vault, OPERATOR, "uk", dry_run=True)
        real = await repair(self.vault, OPERATOR, "uk", dry_run=False)
        assert dry == real
        self.vault.keyring.forget()
        return real


@pytest.fixture
async def place(api: Api, vault: Vault, faxes: Faxes, fax: bytes) -> Place:
    """Take in one of each, sequence, publish and mirror."""
    order = await api.order()
    _, document = await api.put(order, (SAMPLES / "passport-uto.jpg").read_bytes())
    _, taken = await faxes.send(fax)
    # A base, and two segments after it.
    for _ in range(2):
        await vault.keyring.mirror("uk")
        await api.order()
    await vault.keyring.mirror("uk")
    await sequence_log(vault, "uk")
    await publish_log(vault, "uk")
    return Place(api, vault, faxes, order, document["id"], taken["id"])


async def test_each_column_of_bytes_is_of_a_known_sort(pool: Pool) -> None:
    """A new column of bytes says here what becomes of it when it is damaged."""
    rows = await pool.fetch(
        """
        select table_name, column_name from information_schema.columns
        where table_schema = 'public' and (data_type = 'bytea' or udt_name = '_bytea')
        """
    )
    assert {tuple(row) for row in rows} == {*MENDED, *NAMED, *REFUSED, *TAKEN_AGAIN, *LOG}


async def test_each_sort_of_row_is_found_and_mended_or_named(place: Place) -> None:
    """One byte of each column is flipped: found everywhere, mended or with what to do, answered."""
    assert await place.found() == ""
    assert set((await place.answers()).values()) == {200}
    for (table, column), how in {**MENDED, **NAMED}.items():
        where = {
            "data_key": f"id = '{place.document}'",
            "document": f"id = '{place.document}'",
            "fax": f"id = '{place.fax}'",
            "porting_order": f"id = '{place.order}'",
            "number_index": f"\"order\" = '{place.order}'",
            "key_generation": "state = 'active' and region = 'uk'",
        }.get(table, "region = 'uk'")
        flip = f"update {table} set {column} = set_byte({column}, 5, get_byte({column}, 5) # 1)"
        await place.vault.pool.execute(f"{flip} where {where}")
        said = await place.found()
        assert f"{table}.{column}" in said, (table, column, said)
        answers = await place.answers()
        for thing in ("document", "fax", "porting_order"):
            hit = {"key_tree": True, "key_node": True}.get(table, table == thing)
            hit = hit or (table == "data_key" and thing == "document")
            assert answers[thing] == (503 if hit else 200), (table, column, answers)
        done = await place.repaired()
        (mend,) = done.mends
        assert (mend.damage.table, mend.damage.column) == (table, column)
        assert how in mend.how
        assert (mend.mended, done.left) == ((table, column) in MENDED, not mend.mended)
        if not mend.mended:
            await place.vault.pool.execute(f"{flip} where {where}")
            # The dry run forgets what was mended by hand.
            assert (await repair(place.vault, OPERATOR, "uk", dry_run=True)).mends == ()
            assert await place.vault.pool.fetchval("select count(*) from damage") == 0
        await renew_index(place.vault, "uk")
        assert await place.found() == "", (table, column)
        assert set((await place.answers()).values()) == {200}
    assert await seal(place.vault, OPERATOR, "uk", force=True) is not None
    said = "select count(*) from access_record where action = 'damage.repair' and reason = 'mended'"
    assert await place.vault.pool.fetchval(said) > 0


async def test_a_lost_key_is_put_back(place: Place) -> None:
    """Of a document, a fax and an order: none was shredded, and the mirror has each."""
    things = [UUID(place.document), UUID(place.fax), UUID(place.order)]
    scopes = [
        await place.vault.pool.fetchval("select scope from data_key where id = $1", thing)
        for thing in things
    ]
    for thing, scope in zip(things, scopes, strict=True):
        async with place.vault.pool.acquire() as conn, conn.transaction():
            await conn.execute("delete from data_key where id = $1", thing)
            # Whoever shreds it now has its scope re-keyed, though no row names it any more.
            assert scope in await LivingRows().scopes_of(conn, "uk", [thing])
            await place.vault.keyring.doubt(conn, "uk", scope)
        said = f"{thing} in uk is missing.*`portvault repair --region uk`"
        with pytest.raises(DamagedError, match=said):
            await seal(place.vault, OPERATOR, "uk")
        assert [mend.mended for mend in (await place.repaired()).mends] == [True]
    assert await seal(place.vault, OPERATOR, "uk") is not None
    await place.vault.keyring.mirror("uk")
    await place.vault.pool.execute("delete from data_key where id = any($1)", things)
    assert set((await place.answers()).values()) == {503}
    walk = await verify_keys(place.vault, OPERATOR, "uk")
    assert {item.id for item in walk.findings} == {str(thing) for thing in things}
    said = await place.found()
    assert all(f"data_key of {thing} in uk is missing" in said for thing in things)
    done = await place.repaired()
    assert {mend.damage.id for mend in done.mends} == {str(thing) for thing in things}
    assert done.left == 0
    assert set((await place.answers()).values()) == {200}
    assert await place.found() == ""


async def test_what_a_request_met_is_what_the_doctor_says(place: Place) -> None:
    """Before the worker has looked, and until it is sound again."""
    for table in ("document", "fax", "porting_order"):
        column = "metadata" if table == "document" else "details"
        column = "stream_header" if table == "fax" else column
        flip = f"update {table} set {column} = {FLIP.format(column)} where region = 'uk'"
        await place.vault.pool.execute(flip)
        assert (await doctor_damage(place.vault.config, ["uk"]))[0] == "ok"
        assert 503 in (await place.answers()).values()
        verdict, said = await doctor_damage(place.vault.config, ["uk"])
        assert verdict == "fail"
        assert f"{table}.{column}" in said
        await place.vault.pool.execute(flip)
        assert (await repair(place.vault, OPERATOR, "uk", dry_run=True)).mends == ()
        assert (await doctor_damage(place.vault.config, ["uk"]))[0] == "ok"


async def test_where_no_copy_fits_it_is_said_what_to_do(place: Place) -> None:
    """A page, then the root too, without a mirror: each is named once, and nothing mended."""
    for path in (place.objects / "keys").iterdir():
        path.unlink()
    for table, column in (("key_node", "page"), ("key_tree", "root_wrap")):
        flip = f"update {table} set {column} = {FLIP.format(column)} where region = 'uk'"
        await place.vault.pool.execute(flip)
        mends = (await place.repaired()).mends
        places = [mend.damage.place for mend in mends]
        assert len(places) == len(set(places))
        (how,) = [mend.how for mend in mends if mend.damage.table == table]
        assert "`portvault restore`" in how
        assert "with its WAL" in how
        assert not any(mend.mended for mend in mends)
        walk = await verify_keys(place.vault, OPERATOR, "uk")
        assert f"{table}.{column}" in str(walk.findings[0])


def _flip(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


async def test_each_kind_of_object_is_found_and_mended_or_named(place: Place) -> None:
    """A byte is flipped in each, its end is cut, and it is taken away."""
    vault = place.vault
    names = [item.name async for item in vault.stores["uk"].list("")]
    assert {kind for kind in OBJECTS if any(name.startswith(kind) for name in names)} == {*OBJECTS}
    assert all(any(name.startswith(kind) for kind in OBJECTS) for name in names)
    segments = sorted(name for name in names if name.startswith("keys/"))
    assert len(segments) >= 3
    damages: dict[str, Callable[[bytes], bytes] | None] = {
        "flipped": _flip,
        "cut": lambda data: data[:-1],
        "missing": None,
    }
    for name in (f"documents/{place.document}", f"documents/{place.fax}", "keys/"):
        for number, damage in enumerate(damages.values()):
            names = sorted([item.name async for item in vault.stores["uk"].list(name)])
            # The newest segment, one in the middle, the base.
            one = names[-1 - number % len(names)]
            path = place.objects / one
            kept = path.read_bytes()
            path.write_bytes(damage(kept)) if damage else path.unlink()
            assert f"object {one}" in await place.found()
            (mend,) = (await place.repaired()).mends
            assert (mend.damage.object, mend.mended) == (one, name == "keys/")
            if name == "keys/":
                number_of = int(one.removeprefix("keys/").partition("-")[0])
                assert mend.damage.segment == number_of
                await place.api.order()
                await vault.keyring.mirror("uk")
                await place.api.order()
                await vault.keyring.mirror("uk")
            else:
                assert "the bucket's own versions" in mend.how
                last = "its sender" if one.endswith(place.fax) else "ask for the document again"
                assert last in mend.how
                path.write_bytes(kept)
            assert await place.found() == ""


async def test_the_published_log_is_mended_from_a_database_that_holds_it(
    place: Place, pool: Pool
) -> None:
    """Each kind of tile, the checkpoint; and from a database whose log is another one, nothing."""
    vault = place.vault
    (note,) = (place.objects / "log").glob("checkpoint-*")
    kept = note.read_bytes()
    for damaged in (_flip(kept), None):
        note.write_bytes(damaged) if damaged else note.unlink()
        longer = place.objects / "log/tile/0/001"
        longer.write_bytes(bytes(32 * 256))
        done = await place.repaired()
        assert (done.left, len(done.mends), note.read_bytes() if damaged else b"") == (
            1,
            1,
            damaged or b"",
        )
        longer.unlink()
        (mend,) = (await place.repaired()).mends
        assert (mend.damage.object, mend.mended) == (f"log/{note.name}", True)
        assert note.read_bytes() == kept
    tiles = [item.name async for item in vault.stores["uk"].list("log/tile/")]
    assert len({name.split("/")[2] for name in tiles}) == 2
    for name in tiles:
        path = place.objects / name
        kept = path.read_bytes()
        for damaged in (_flip(kept), None):
            path.write_bytes(damaged) if damaged else path.unlink()
            assert f"object {name}" in await place.found()
            asked = [name.removeprefix("log/")] + ["inclusion?index=0"] * ("/tile/0/" in name)
            for one in asked:
                where = f"/v1/log/uk/{one}"
                status, answer, _ = await place.api.call("GET", where, role="compliance")
                assert (status, answer["title"]) == (503, "Damaged"), (one, damaged)
            (mend,) = (await place.repaired()).mends
            assert (mend.damage.object, mend.mended) == (name, True)
            assert path.read_bytes() == kept
    async with pool.acquire() as conn, conn.transaction():
        await published_sql.begin_rewriting(conn)
        await conn.execute(
            """
            update log_leaf set leaf_hash = set_byte(leaf_hash, 5, get_byte(leaf_hash, 5) # 1)
            where region = 'uk' and index = 0
            """
        )
        await published_sql.end_rewriting(conn)
    assert "log_leaf.leaf_hash of 0 in uk" in await place.found()
    path = place.objects / tiles[0]
    kept = path.read_bytes()
    path.write_bytes(_flip(kept))
    done = await place.repaired()
    assert done.left == len(done.mends) >= 1
    assert path.read_bytes() == _flip(kept)


@pytest.mark.parametrize("sealed", [False, True])
async def test_what_was_shredded_is_never_put_back(place: Place, *, sealed: bool) -> None:
    """Though its row says that it is stored, and the mirror still has its wrap from before."""
    vault, thing = place.vault, UUID(place.document)
    row: Any = await vault.pool.fetchrow("select metadata from document where id = $1", thing)
    status, _, _ = await place.api.call(
        "POST", f"/v1/documents/{thing}/actions/shred", json={"reason": "test"}, role="dpo"
    )
    assert status == 200
    if sealed:
        assert await seal(vault, OPERATOR, "uk") is not None
    # As whoever writes rows would have it: the tombstones are gone, and it is in custody again.
    await vault.pool.execute("delete from key_gone")
    await vault.pool.execute(
        """
        update document set custody = 'stored', metadata = $2, shredded_at = null,
            last_generation = null, sealed_at = null where id = $1
        """,
        thing,
        row["metadata"],
    )
    done = await place.repaired()
    assert [mend.how for mend in done.mends] == ["it was shredded, and is not put back"]
    assert await vault.pool.fetchval("select count(*) from data_key where id = $1", thing) == 0


async def test_what_is_sealed_in_a_row_is_taken_from_a_backup(place: Place, tmp_path: Path) -> None:
    """Only where it opens under the row's own key; that it may be of before is said."""
    vault, files = place.vault, {name: tmp_path / name for name in ("good", "other")}
    dump = partial(run_tool, "pg_dump", "--format=custom", dsn=vault.config.database)
    await dump(f"--file={files['good']}")
    things = {"document": place.document, "fax": place.fax, "porting_order": place.order}
    for (table, column), how in NAMED.items():
        flip = f"update {table} set {column} = {FLIP.format(column)} where id = $1"
        await vault.pool.execute(flip, UUID(things[table]))
        mend = {one.damage.table: one for one in (await place.repaired()).mends}[table]
        assert how in mend.how
        assert "portvault repair --backup FILE" in mend.how
    await dump(f"--file={files['other']}")
    later = "update porting_order set changed_at = now() where id = $1"
    await vault.pool.execute(later, UUID(place.order))
    done = Repaired("uk", ())
    for name, mended in (("other", False), ("good", True)):
        backup = DumpColumns(files[name])
        await backup.open()
        for dry_run in (True, False):
            done = await repair(vault, OPERATOR, "uk", dry_run=dry_run, backup=backup)
            assert [mend.mended for mend in done.mends] == [mended] * 3, done
    said = {mend.damage.table: mend.how for mend in done.mends}
    assert "look whether" in said["porting_order"]
    assert "look whether" not in said["document"]
    assert set((await place.answers()).values()) == {200}
    assert await place.found() == ""
