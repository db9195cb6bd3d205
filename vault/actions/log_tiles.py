"""
The tiles of a published log, each checked against what the signed checkpoint commits to.

The last tile of each level is partial or not there; together they hash into the checkpoint's root.
Any other tile is whole, and its root stands in a tile of the level above. So one tile takes the few
above it, however long the log is; none is handed out, or hashed into a proof, for where it lies.
"""

import asyncio
from dataclasses import replace

from keys.damage import Damage, DamagedError
from keys.errors import IntegrityError
from vault.actions.bucket import PREFIX, fetch_tile
from vault.actions.read import damaged
from vault.context import Vault
from vault.domain.checkpoint import open_checkpoint
from vault.domain.merkle import leaf_hash, root_of
from vault.domain.tiles import Run, Tile, decode_entries, decode_hashes, join, place_of, subtrees
from vault.errors import ObjectMissingError

_LEVEL_BITS = 8


class MissingTileError(DamagedError):
    """A tile that the published log has is not in the bucket."""


class Tiles:
    """The tiles under one checkpoint, each fetched once for one answer; raises `DamagedError`."""

    def __init__(self, vault: Vault, region: str, size: int, note: str) -> None:
        self._vault, self._region, self.size = vault, region, size
        self._note, self._known = note, dict[Tile, list[bytes]]()

    async def hash_of(self, run: Run) -> bytes:
        """Return the tree hash over a run of records."""
        return join(await self.compact(*run))

    async def compact(self, first: int, last: int) -> list[bytes]:
        """Return the hashes of the full subtrees that a run consists of, from left to right."""
        return [await self._subtree(tree) for tree in subtrees(first, last)]

    async def hashes(self, tile: Tile) -> list[bytes]:
        """Return the hashes of a tile that a log of this size has."""
        if not self._known:
            await self._open_edge()
        if tile not in self._known:
            found = await self._fetch(tile)
            above, place, _ = place_of((_LEVEL_BITS * (tile.level + 1), tile.index), self.size)
            if root_of(found) != (await self.hashes(above))[place]:
                raise self._damaged(tile, "does not hash into the signed checkpoint")
            self._known[tile] = found
        return self._known[tile]

    async def entries(self, bundle: Tile) -> list[bytes]:
        """Return the entries of a bundle that a log of this size has."""
        hashes = await self.hashes(replace(bundle, level=0))
        try:
            found = decode_entries(await fetch_tile(self._vault.stores[self._region], bundle))
        except ObjectMissingError:
            raise self._missing(bundle) from None
        except (ValueError, IntegrityError):
            raise self._damaged(bundle, "is damaged") from None
        if [leaf_hash(entry) for entry in found] != hashes:
            raise self._damaged(bundle, "does not hash into the signed checkpoint")
        return found

    async def _open_edge(self) -> None:
        """Fetch the last tile of each level, and compare the whole with the checkpoint's root."""
        try:
            root = open_checkpoint(self._note, self._vault.signer, self._region).root
        except IntegrityError:
            item = Damage(self._region, "does not verify", "log_checkpoint", str(self.size), "note")
            raise damaged(item) from None
        places = [place_of(tree, self.size) for tree in subtrees(0, self.size)]
        tiles = list(dict.fromkeys(tile for tile, _, _ in places))
        edge = dict(zip(tiles, await asyncio.gather(*map(self._fetch, tiles)), strict=True))
        if join([root_of(edge[tile][start:end]) for tile, start, end in places]) != root:
            says = "does not hash into the signed checkpoint, or one beside it at the log's end"
            raise self._damaged(tiles[0], says)
        self._known = edge

    async def _subtree(self, subtree: tuple[int, int]) -> bytes:
        tile, start, end = place_of(subtree, self.size)
        return root_of((await self.hashes(tile))[start:end])

    async def _fetch(self, tile: Tile) -> list[bytes]:
        try:
            found = decode_hashes(await fetch_tile(self._vault.stores[self._region], tile))
        except ObjectMissingError:
            raise self._missing(tile) from None
        except (ValueError, IntegrityError):
            raise self._damaged(tile, "is damaged") from None
        if len(found) != tile.width:
            raise self._damaged(tile, "is damaged")
        return found

    def _missing(self, tile: Tile) -> MissingTileError:
        item = Damage(self._region, "is missing", object=PREFIX + tile.path)
        return MissingTileError("something is damaged", [item])

    def _damaged(self, tile: Tile, says: str) -> DamagedError:
        return damaged(Damage(self._region, says, object=PREFIX + tile.path))
