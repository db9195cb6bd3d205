"""What an operator sees of a region's tree: its measures, and whether all of it opens."""

from dataclasses import dataclass
from datetime import datetime

from keys import data_keys, mirror_rows
from keys.custodian import Custodian
from keys.errors import IntegrityError, RolledBackError
from keys.nodes import Tree
from keys.rows import Connection
from keys.segment import Opener
from keys.tree import Node, Scope, WrappedKey

#: What does not open is named up to so many times.
FINDINGS_MAX = 100


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
    """What a walk over the whole tree opened, and what it could not; empty findings are good."""

    region: str
    generation: int
    nodes: int
    scopes: int
    keys: int
    findings: tuple[str, ...]


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
    opener = Opener(region, head.root, root_key)
    seen = {Node: 0, Scope: 0, WrappedKey: 0}
    findings = list[str]()
    async for row in mirror_rows.whole(conn, region):
        if not isinstance(row, Node | Scope | WrappedKey):
            continue
        seen[type(row)] += 1
        try:
            opener.open(row)
        except IntegrityError:
            if len(findings) < FINDINGS_MAX:
                findings.append(f"{_name(row)} does not open")
    counted = await data_keys.counts(conn, region)
    if counted is not None:
        for what, kind, count in (
            ("nodes", Node, counted.nodes),
            ("scopes", Scope, counted.scopes),
            ("data keys", WrappedKey, counted.keys),
        ):
            if count != seen[kind]:
                findings.append(f"{count - seen[kind]} {what} hang on nothing")
    return Walk(region, head.generation, seen[Node], seen[Scope], seen[WrappedKey], tuple(findings))


def _name(row: Node | Scope | WrappedKey) -> str:
    match row:
        case Node():
            return f"node {row.id}"
        case Scope():
            return f"scope {row.id}"
        case WrappedKey():
            return f"data key {row.id}"
