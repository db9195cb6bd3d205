"""
Root keys in the transit engine of OpenBao or Vault, over HTTP.

`transit:https://HOST:8200/MOUNT?token-file=/PATH`, with `&ca-file=/PATH` where the server's
certificate is signed by an authority of one's own. A generation is a key `portvault-REGION-NUMBER`
of the engine, not exportable; the server wraps and unwraps, the key never comes here. It is
destroyed by allowing its deletion and deleting it.

A deleted key leaves no trace, so a key `portvault-REGION-destroyed-NUMBER`, which wraps nothing, is
made first: its name says up to which number all that is not there was destroyed. The one before it
is deleted afterwards. Where there is neither key nor mark, the mount is another or was emptied, and
that is "unavailable", not destruction.
"""

import base64
import binascii
import re
from typing import Any

from keys import wrap as keys_wrap
from keys.custodians.transit_server import RefusedError, TransitServer
from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
)

PREFIX = "portvault"
_NAME = re.compile(rf"{PREFIX}-([a-z]+)-(destroyed-)?([0-9]+)")


class TransitCustodian:
    """Root keys in a mount of the transit engine."""

    destroy_level = 0
    destroy_promise = (
        "The key was deleted from the transit engine; a snapshot or another backup of the server's "
        "storage may still hold it."
    )

    def __init__(self, place: str) -> None:
        self._server = TransitServer(place)

    def __repr__(self) -> str:
        return f"TransitCustodian({self._server.url})"

    @property
    def name(self) -> str:
        """Return the address, without what opens it."""
        return self._server.name

    async def create(self, region: str, generation: int) -> None:
        """Make the key; the server keeps one that is there as it is."""
        living, destroyed = await self._found(region)
        if generation in living:
            return
        if generation <= destroyed:
            raise KeyDestroyedError(f"generation {generation} of {region} was destroyed")
        await self._make(_key(region, generation))

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Have the server encrypt a key under the generation."""
        if len(key) != keys_wrap.KEY_BYTES:
            raise IntegrityError
        fields = {"plaintext": _text(key), "associated_data": _text(context)}
        try:
            data = await self._server.call("POST", f"encrypt/{_key(region, generation)}", fields)
        except RefusedError:
            await self._require(region, generation)
            raise IntegrityError from None
        return str(data["ciphertext"]).encode()

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """Have the server decrypt what `wrap` made."""
        fields = {
            "ciphertext": wrapped.decode("ascii", errors="replace"),
            "associated_data": _text(context),
        }
        try:
            data = await self._server.call("POST", f"decrypt/{_key(region, generation)}", fields)
        except RefusedError:
            await self._require(region, generation)
            raise IntegrityError from None
        try:
            key = base64.b64decode(data["plaintext"], validate=True)
        except (binascii.Error, ValueError):
            raise IntegrityError from None
        if len(key) != keys_wrap.KEY_BYTES:
            raise IntegrityError
        return key

    async def destroy(self, region: str, generation: int) -> None:
        """Mark the number as destroyed, then delete the key, and the marks before."""
        _, destroyed = await self._found(region)
        # The mark is first: a crash after it leaves a key that is destroyed again, not made again.
        if generation > destroyed:
            await self._make(_mark(region, generation))
        await self._delete(_key(region, generation))
        for number in (await self._numbers(region))[1]:
            if number < max(generation, destroyed):
                await self._delete(_mark(region, number))

    async def generations(self, region: str) -> list[int]:
        """Return the living generations."""
        living, _ = await self._found(region)
        return living

    async def returned(self, region: str) -> list[int]:
        """Return nothing: a key below the mark is one that was not destroyed, as far as it says."""
        del region
        return []

    async def last_destroyed(self, region: str) -> int:
        """Return the highest number that was destroyed."""
        _, destroyed = await self._found(region)
        return destroyed

    async def check(self) -> None:
        """Raise when the server is away or refuses, or when a key of ours could leave it."""
        config = await self._server.call("GET", "config/keys")
        if not config.get("disable_upsert"):
            raise CustodianConfigurationError(
                f"{self.name} makes keys that nobody asked for: bao write "
                f"{self._server.mount}/config/keys disable_upsert=true"
            )
        names = await self._names()
        ours = [(name, match) for name in names if (match := _NAME.fullmatch(name))]
        marks = [(match[1], int(match[3])) for _, match in ours if match[2]]
        for name, match in ours:
            region, number = match[1], int(match[3])
            # One up to the mark came back, or is to be destroyed: a refusal would let it lie.
            if match[2] or any(each == region and number <= mark for each, mark in marks):
                continue
            key = await self._server.call("GET", f"keys/{name}")
            if key.get("exportable") or key.get("allow_plaintext_backup"):
                raise CustodianConfigurationError(
                    f"the key {name} of {self.name} can be copied out of the server, so that "
                    "destroying it is worth nothing: move the region to a mount whose keys this "
                    "vault makes"
                )

    async def close(self) -> None:
        """Let go of the connections."""
        await self._server.close()

    async def _require(self, region: str, generation: int) -> None:
        """Raise unless the key is there."""
        living, destroyed = await self._found(region)
        if generation in living:
            return
        if not living and not destroyed:
            raise CustodianUnavailableError(
                f"{self.name} holds no root keys of {region}: see that it is the right mount, or "
                "bring the keys back"
            )
        if generation > destroyed:
            raise KeyMissingError(self.name, region, generation)
        raise KeyDestroyedError

    async def _found(self, region: str) -> tuple[list[int], int]:
        """Return the living generations, and the highest number that was destroyed."""
        living, marks = await self._numbers(region)
        return living, max(marks, default=0)

    async def _numbers(self, region: str) -> tuple[list[int], list[int]]:
        """Return the numbers of the keys and of the marks."""
        found = [match for name in await self._names() if (match := _NAME.fullmatch(name))]
        ours = [(match[2], int(match[3])) for match in found if match[1] == region]
        living = sorted(number for mark, number in ours if not mark)
        return living, [number for mark, number in ours if mark]

    async def _names(self) -> list[str]:
        data = await self._server.call("GET", "keys?list=true", missing={"keys": []})
        return [str(name) for name in data.get("keys", [])]

    async def _make(self, name: str) -> None:
        fields = {"type": "aes256-gcm96", "exportable": False, "allow_plaintext_backup": False}
        await self._change("POST", f"keys/{name}", fields)

    async def _delete(self, name: str) -> None:
        """Delete a key; one that is not there is no failure."""
        try:
            await self._server.call("POST", f"keys/{name}/config", {"deletion_allowed": True})
            await self._server.call("DELETE", f"keys/{name}")
        except RefusedError as refusal:
            if name in await self._names():
                raise CustodianUnavailableError(f"{self.name} keeps {name}: {refusal}") from None

    async def _change(self, method: str, path: str, fields: dict[str, Any]) -> None:
        try:
            await self._server.call(method, path, fields)
        except RefusedError as refusal:
            raise CustodianUnavailableError(f"{self.name} refuses {path}: {refusal}") from None


def _key(region: str, generation: int) -> str:
    return f"{PREFIX}-{region}-{generation}"


def _mark(region: str, number: int) -> str:
    return f"{PREFIX}-{region}-destroyed-{number}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
