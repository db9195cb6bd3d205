"""What lies on a token for a region, and how it is made. Formats: see `pkcs11`."""

from dataclasses import dataclass, field
from typing import Any

from pkcs11 import Attribute, KeyType, Mechanism, MechanismFlag, ObjectClass
from pkcs11 import exceptions as p11
from pkcs11.mechanisms import GCMParams

from keys import wrap
from keys.errors import CustodianConfigurationError, IntegrityError, KeyDestroyedError

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
    """Return what `keys.wrap.seal` would."""
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
