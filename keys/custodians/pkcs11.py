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
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import exceptions as p11
from pkcs11.mechanisms import GCMParams

from keys import wrap
from keys.custodians.pkcs11_token import (
    Library,
    Token,
    TokenLostError,
    leave_token,
    parse_address,
    take_token,
)
from keys.errors import (
    CustodianConfigurationError,
    CustodianUnavailableError,
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
)

# ---- What lies on a token for a region, and how it is made. Formats: see `pkcs11`. --------------

MARK = "destroyed"
_WRAPPED_BYTES = 1 + wrap.NONCE_BYTES + wrap.KEY_BYTES + wrap.TAG_BYTES
_KEY_BITS = wrap.KEY_BYTES * 8
#: What must be so of a root key; asked for when it is made, and read back.
_RULES = {
    Attribute.PRIVATE: True,
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.MODIFIABLE: False,
}


@dataclass(slots=True)
class Objects:
    """A region's objects, seen in one search; keys and records by generation and CKA_ID."""

    keys: dict[int, dict[bytes, Any]] = field(default_factory=dict)
    records: dict[int, dict[bytes, Any]] = field(default_factory=dict)
    marks: list[tuple[int, Any]] = field(default_factory=list)

    @property
    def destroyed(self) -> int:
        """The highest number that was destroyed."""
        return max((number for number, _ in self.marks), default=0)

    def living(self) -> list[int]:
        """
        Return the generations whose key counts, and those up to the mark that a key lies here of.

        The latter are refused, marked or without a record; that they lie here their destroyer has
        to know: a destroy was interrupted, or a copy of the token's files or keys came back.
        """
        counting = {number for number in self.records if self.has_key(number)}
        return sorted(counting | {number for number in self.keys if number <= self.destroyed})

    def has_key(self, generation: int) -> bool:
        """Whether the generation has a key that counts, and was not marked."""
        return bool(self._settled(generation))

    def key(self, generation: int) -> Any:
        """Return the key that counts."""
        found = self._settled(generation)
        if not found:
            raise KeyDestroyedError
        if len(found) > 1:
            raise CustodianConfigurationError(
                f"the token holds {len(found)} keys for generation {generation}: keep the one "
                "that opens the tree, destroy the others with the vendor's tool"
            )
        return found[0]

    def _settled(self, generation: int) -> list[Any]:
        if generation in {number for number, _ in self.marks}:
            return []
        keys = self.keys.get(generation, {})
        return [keys[name] for name in self.records.get(generation, {}) if name in keys]


def look(session: Any, label: str) -> Objects:
    """
    Return the objects whose label begins so.

    In one search, so that a token that vanishes cannot look as if one key alone were gone.
    """
    seen = Objects()
    for item in list(session.get_objects({Attribute.TOKEN: True})):
        try:
            _sort(item, label + "-", seen)
        except (p11.ObjectHandleInvalid, p11.AttributeTypeInvalid, p11.AttributeSensitive):
            # Destroyed since the search, or not of our making.
            continue
    return seen


def _sort(item: Any, label: str, seen: Objects) -> None:
    kind = item[Attribute.CLASS]
    if kind not in (ObjectClass.SECRET_KEY, ObjectClass.DATA):
        return
    name = item[Attribute.LABEL]
    rest = name.removeprefix(label) if name.startswith(label) else ""
    if kind == ObjectClass.DATA and rest == MARK:
        seen.marks.append((int(item[Attribute.VALUE]), item))
    elif rest.isascii() and rest.isdigit():
        secret = kind == ObjectClass.SECRET_KEY
        into, by = (seen.keys, Attribute.ID) if secret else (seen.records, Attribute.VALUE)
        into.setdefault(int(rest), {})[bytes(item[by])] = item


def make_key(session: Any, label: str, identity: bytes) -> None:
    """Have the token generate a key that it never gives out, and see that it is such a key."""
    key = session.generate_key(
        KeyType.AES,
        _KEY_BITS,
        id=identity,
        label=label,
        store=True,
        capabilities=MechanismFlag.ENCRYPT | MechanismFlag.DECRYPT,
        template=_RULES,
    )
    wanted = _RULES | {
        Attribute.TOKEN: True,
        Attribute.LOCAL: True,
        Attribute.KEY_TYPE: KeyType.AES,
        Attribute.VALUE_LEN: wrap.KEY_BYTES,
        Attribute.WRAP: False,
        Attribute.DERIVE: False,
    }
    wrong = [name.name for name, value in wanted.items() if key[name] != value]
    if wrong:
        key.destroy()
        raise CustodianConfigurationError(
            f"the token made a key against what was asked ({', '.join(wrong)}): its policy must "
            "allow AES-256 keys that are sensitive and cannot be extracted"
        )


def keep(session: Any, label: str, value: bytes) -> None:
    """Keep a data object."""
    session.create_object(
        {
            Attribute.CLASS: ObjectClass.DATA,
            Attribute.TOKEN: True,
            Attribute.PRIVATE: True,
            Attribute.MODIFIABLE: False,
            Attribute.APPLICATION: "portvault",
            Attribute.LABEL: label,
            Attribute.VALUE: value,
        }
    )


def remove(item: Any) -> None:
    """Destroy an object; one that is gone already is as good."""
    try:
        item.destroy()
    except p11.ObjectHandleInvalid:
        return


def encrypt(key: Any, child: bytes, context: bytes, nonce: bytes) -> bytes:
    """Return what `keys.wrap.encrypt` would."""
    body = key.encrypt(child, mechanism=Mechanism.AES_GCM, mechanism_param=_gcm(nonce, context))
    return wrap.VERSION + nonce + bytes(body)


def decrypt(key: Any, wrapped: bytes, context: bytes) -> bytes:
    """Return what `encrypt` was given; raises `IntegrityError` for anything else."""
    if len(wrapped) != _WRAPPED_BYTES or wrapped[:1] != wrap.VERSION:
        raise IntegrityError
    nonce, body = wrapped[1 : 1 + wrap.NONCE_BYTES], wrapped[1 + wrap.NONCE_BYTES :]
    try:
        child = bytes(
            key.decrypt(body, mechanism=Mechanism.AES_GCM, mechanism_param=_gcm(nonce, context))
        )
    except p11.PKCS11Error:
        # Tokens name a wrong tag as they like. If the key works, it is the bytes or the context.
        probe(key)
        raise IntegrityError from None
    if len(child) != wrap.KEY_BYTES:
        raise IntegrityError
    return child


def probe(key: Any) -> None:
    """Raise the token's error when the key cannot encrypt and decrypt."""
    gcm = _gcm(bytes(wrap.NONCE_BYTES - 1) + b"\x01", b"probe")
    body = key.encrypt(b"probe", mechanism=Mechanism.AES_GCM, mechanism_param=gcm)
    key.decrypt(body, mechanism=Mechanism.AES_GCM, mechanism_param=gcm)


def check_mechanisms(session: Any) -> None:
    """Raise when the token has no AES-256-GCM with associated data, by trying it."""
    try:
        key = session.generate_key(KeyType.AES, _KEY_BITS, template={Attribute.EXTRACTABLE: False})
        probe(key)
    except (p11.MechanismInvalid, p11.MechanismParamInvalid, p11.FunctionNotSupported):
        raise CustodianConfigurationError(
            "the token has no AES-256-GCM with a nonce from outside; another one is needed"
        ) from None
    remove(key)


def _gcm(nonce: bytes, context: bytes) -> GCMParams:
    return GCMParams(nonce, wrap.VERSION + context)


# ---- Pkcs11. ------------------------------------------------------------------------------------

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
