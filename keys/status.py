"""What an operator sees of a region's tree: its measures, and whether all of it opens."""

from dataclasses import dataclass
from datetime import datetime

from keys import data_keys, mirror_rows
from keys.custodian import Custodian
from keys.damage import Damage, Finder
from keys.errors import RolledBackError
from keys.ground.postgres import Connection
from keys.nodes import Tree
from keys.tree import Node, Scope, WrappedKey


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """What an operator asks about a region's tree; times are aware UTC."""

    region: str
    generation: int
    created_at: datetime
    keys: int
    scopes: int
    nodes: int
    depth: int
    dirty_scopes: int
    last_seal_at: datetime | None
    mirrored_at: datetime | None
    custodian: str
    destroy_level: int
    destroy_promise: str


@dataclass(frozen=True, slots=True)
class Walk:
    """What a walk over the whole tree read, and what it could not open; no findings are good."""

    region: str
    generation: int
    nodes: int
    scopes: int
    keys: int
    findings: tuple[Damage, ...]


async def status(conn: Connection, region: str, custodian: Custodian) -> KeyStatus:
    """Return the measures of a region's tree; raises `RolledBackError` where there is none."""
    found = await data_keys.counts(conn, region)
    if found is None:
        raise RolledBackError
    return KeyStatus(
        region=region,
        generation=found.generation,
        created_at=found.active_at,
        keys=found.keys,
        scopes=found.scopes,
        nodes=found.nodes,
        depth=found.depth,
        dirty_scopes=found.dirty_scopes,
        last_seal_at=found.last_destroyed_at,
        mirrored_at=found.mirrored_at,
        custodian=custodian.name,
        destroy_level=custodian.destroy_level,
        destroy_promise=custodian.destroy_promise,
    )


def seal_overdue(region: str, seconds: float) -> str:
    """Return what is to be said where something has been waiting for a seal for too long."""
    return (
        f"what was shredded in {region} has been waiting for a seal for {seconds / 60:.0f} min and "
        "is beyond use, not irrecoverable: see that a worker runs, and what `portvault keys seal "
        f"--region {region}` says"
    )


async def walk(conn: Connection, region: str, head: Tree, root_key: bytes) -> Walk:
    """
    Open every key of the tree, within a transaction of the caller that shows one moment.

    What cannot be opened is named, and so is what no path from the root leads to.
    """
    finder = Finder(region, head.root, root_key)
    seen = {Node: 0, Scope: 0, WrappedKey: 0}
    async for row in mirror_rows.whole(conn, region):
        if isinstance(row, Node | Scope | WrappedKey):
            seen[type(row)] += 1
            finder.open(row)
    findings = finder.damages
    if finder.below:
        findings.append(_counted(region, finder.below, "cannot be judged: what is above does not"))
    counted = await data_keys.counts(conn, region)
    if counted is not None:
        for table, kind, count in (
            ("key_node", Node, counted.nodes),
            ("key_scope", Scope, counted.scopes),
            ("data_key", WrappedKey, counted.keys),
        ):
            if count != seen[kind]:
                findings.append(_counted(region, count - seen[kind], "hang on nothing", table))
    return Walk(region, head.generation, seen[Node], seen[Scope], seen[WrappedKey], tuple(findings))


async def look_at_leaves(
    conn: Connection, region: str, head: Tree, root_key: bytes, after: int
) -> tuple[list[Damage], int | None]:
    """Open the leaves after one, and all that hangs on them; returns the last if more follow."""
    finder = Finder(region, head.root, root_key)
    leaves, rows = await mirror_rows.some(conn, region, head.root, after)
    for row in rows:
        finder.open(row)
    return finder.damages, leaves[-1].id if len(leaves) == mirror_rows.LEAVES_BATCH else None


def _counted(region: str, count: int, detail: str, table: str = "key_tree") -> Damage:
    return Damage(region, detail, table, f"{count} rows")
