"""
Root keys in a PKCS#11 token: AES-256, made there, never to leave it.

For each region, with `object=portvault-{region}` in the address:

- `portvault-REGION-GENERATION`, a secret key; its CKA_ID is whoever made it;
- a data object of the same label, which holds the CKA_ID of the key that counts. A key without it
  is a candidate: nothing was ever wrapped under it;
- `portvault-REGION-destroyed`, data objects that each hold a number that was destroyed, in decimal;
  the highest stays for ever, and none at or below it is made again. The first, `0`, is there before
  the first key: a token that shows no such mark is not the one, and says nothing about its keys.

Nothing of this is ever changed, only made and destroyed. What `wrap` returns is what `keys.wrap`
makes: version 1, nonce (12), ciphertext, tag (16) of AES-256-GCM, with the version and the context
as associated data. The nonce is made here: tokens that insist on their own are not supported.

Two who make the same generation at once must agree on one key, though a token can neither lock nor
compare and swap. Each makes a candidate, then looks. Who sees its own alone settles it. Who sees
another withdraws its own, unless it has the lower CKA_ID: then it waits. Of two candidates at least
one maker sees the other's, so only one is ever settled. A maker that died leaves a candidate in the
way of its number; the seal then names the next number, and destroys this one.
"""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

from keys import wrap
from keys.custodians.pkcs11_address import parse_address
from keys.custodians.pkcs11_objects import (
    MARK,
    Objects,
    check_mechanisms,
    decrypt,
    encrypt,
    keep,
    look,
    make_key,
    remove,
)
from keys.custodians.pkcs11_token import Library, Token, TokenLostError, leave_token, take_token
from keys.errors import (
    CustodianUnavailableError,
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
)

T = TypeVar("T")
SETTLE_SECONDS = 5.0
SETTLE_POLL_SECONDS = 0.05


class Pkcs11Custodian:
    """Root keys in an HSM, a smart card, or SoftHSM."""

    def __init__(self, place: str) -> None:
        self._place = place.partition("?")[0]
        self._address = parse_address(place)
        self._taken: tuple[Library, Token] | None = take_token(self._address)
        self._identity = os.urandom(16)

    def __repr__(self) -> str:
        return f"Pkcs11Custodian({self.name})"

    @property
    def name(self) -> str:
        """Return the address, without the library and the PIN's place."""
        return f"pkcs11:{self._place}"

    @property
    def destroy_level(self) -> int:
        """Return 1 for hardware, 0 for SoftHSM and as long as nobody knows."""
        return 0 if self._soft else 1

    @property
    def destroy_promise(self) -> str:
        """Say what is known of the token."""
        if self._soft:
            return (
                "The token deleted the key; SoftHSM keeps its tokens as files, so on flash, on a "
                "copy-on-write filesystem or where snapshots or backups exist, a copy may remain."
            )
        return (
            "The hardware token deleted the key, which it never gave out; a backup of the token or "
            "a clone of it, where its operator made one, may still hold it."
        )

    @property
    def _soft(self) -> bool:
        description = self._taken[1].description if self._taken else ""
        return not description or "softhsm" in description.lower()

    async def create(self, region: str, generation: int) -> None:
        """Make the key on the token; refuses what a mark reaches."""
        if not (await self._seen(region)).marks:
            await self._run(self._begin, region)
        give_up_at = time.monotonic() + SETTLE_SECONDS
        while not await self._run(self._settle, region, generation):
            if time.monotonic() > give_up_at:
                raise CustodianUnavailableError(
                    f"another process is making generation {generation} of {region}, or was killed "
                    "while it did; the next seal takes the next number"
                )
            await asyncio.sleep(SETTLE_POLL_SECONDS)

    async def wrap(self, region: str, generation: int, key: bytes, context: bytes) -> bytes:
        """Encrypt a key under the generation, on the token."""
        if len(key) != wrap.KEY_BYTES:
            raise IntegrityError
        return await self._run(self._wrap, region, generation, key, context)

    async def unwrap(self, region: str, generation: int, wrapped: bytes, context: bytes) -> bytes:
        """Decrypt what `wrap` made, on the token."""
        return await self._run(self._unwrap, region, generation, wrapped, context)

    async def destroy(self, region: str, generation: int) -> None:
        """Mark the number as destroyed, destroy the key, and see that it is gone."""
        await self._run(self._destroy, region, generation)

    async def generations(self, region: str) -> list[int]:
        """Return the living generations, and those up to the mark whose key lies here."""
        return (await self._seen(region)).living()

    async def returned(self, region: str) -> list[int]:
        """
        Return nothing: one up to the mark may be there because its destroy was interrupted.

        `generations` names it, and the rows of the tree tell what was destroyed.
        """
        del region
        return []

    async def last_destroyed(self, region: str) -> int:
        """Return the highest number that was destroyed."""
        return (await self._seen(region)).destroyed

    async def check(self) -> None:
        """Raise when the token is not there, refuses the PIN, or has no AES-GCM."""
        await self._run(check_mechanisms)

    async def close(self) -> None:
        """Let go of the token."""
        taken, self._taken = self._taken, None
        if taken is not None:
            await leave_token(taken[0])

    async def _run(self, work: Callable[..., T], *args: object) -> T:
        if self._taken is None:
            self._taken = take_token(self._address)
        return await self._taken[1].run(work, *args)

    async def _seen(self, region: str) -> Objects:
        """Look; where nothing is seen, look again with a new session, which tells lost from new."""
        seen = await self._run(self._look, region)
        if not seen.marks and self._taken is not None:
            await self._taken[1].forget()
            seen = await self._run(self._look, region)
        return seen

    # What follows runs in the library's thread, and again with a new session when one was lost.

    def _look(self, session: Any, region: str) -> Objects:
        return look(session, self._address.label(region))

    def _require(self, session: Any, region: str) -> Objects:
        seen = self._look(session, region)
        if not seen.marks:
            raise TokenLostError(
                f"the token {self._address} holds nothing of {region}: see that it is the right "
                "one, and that `object` in the custodian's address is as it was"
            )
        return seen

    def _label(self, region: str, what: object) -> str:
        return f"{self._address.label(region)}-{what}"

    def _begin(self, session: Any, region: str) -> None:
        if not self._look(session, region).marks:
            keep(session, self._label(region, MARK), b"0")

    def _settle(self, session: Any, region: str, generation: int) -> bool:
        """Go towards a key that counts, as far as this process can; return whether it is there."""
        label, mine = self._label(region, generation), self._identity
        seen = self._require(session, region)
        if not seen.has_key(generation) and generation > seen.destroyed:
            if not seen.keys.get(generation):
                make_key(session, label, mine)
                seen = self._require(session, region)
            candidates = seen.keys.get(generation, {})
            if set(candidates) == {mine} and generation > seen.destroyed:
                keep(session, label, mine)
            elif mine in candidates and mine != min(candidates):
                remove(candidates[mine])
            seen = self._require(session, region)
        return self._settled(seen, generation)

    def _settled(self, seen: Objects, generation: int) -> bool:
        living = seen.has_key(generation)
        mine = [held.get(generation, {}).get(self._identity) for held in (seen.records, seen.keys)]
        if living or generation <= seen.destroyed:
            # Whoever destroyed the number meanwhile may not have seen what was made here since.
            for item in mine if mine[0] is None or not living else []:
                if item is not None:
                    remove(item)
        if not living and generation <= seen.destroyed:
            raise KeyDestroyedError(f"generation {generation} was destroyed")
        return living

    def _wrap(
        self, session: Any, region: str, generation: int, key: bytes, context: bytes
    ) -> bytes:
        root = self._root(session, region, generation)
        return encrypt(root, key, context, os.urandom(wrap.NONCE_BYTES))

    def _unwrap(
        self, session: Any, region: str, generation: int, wrapped: bytes, context: bytes
    ) -> bytes:
        return decrypt(self._root(session, region, generation), wrapped, context)

    def _root(self, session: Any, region: str, generation: int) -> Any:
        """Return the key on the token; raises when it is not there, and was destroyed or not."""
        seen = self._require(session, region)
        if generation > seen.destroyed and not seen.has_key(generation):
            raise KeyMissingError(self.name, region, generation)
        return seen.key(generation)

    def _destroy(self, session: Any, region: str, generation: int) -> None:
        # The mark is first: a crash after it leaves a key that is destroyed again, not used.
        seen = self._look(session, region)
        if generation not in {number for number, _ in seen.marks}:
            keep(session, self._label(region, MARK), str(generation).encode())
            seen = self._require(session, region)
        for held in (seen.records, seen.keys):
            for item in held.get(generation, {}).values():
                remove(item)
        seen = self._require(session, region)
        if generation in seen.keys:
            raise CustodianUnavailableError(
                f"the token {self._address} still shows generation {generation} of {region} after "
                "destroying it: see that it is not write-protected"
            )
        for number, item in seen.marks:
            if number < seen.destroyed:
                remove(item)
