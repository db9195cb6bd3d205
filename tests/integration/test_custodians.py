"""One conformance suite for all custodians: what each of them must do, whoever it is."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from keys import wrap
from keys.custodian import Custodian, MovingCustodian
from keys.custodians import open_custodian
from keys.errors import (
    CustodianConfigurationError,
    IntegrityError,
    KeyDestroyedError,
    KeyMissingError,
)
from tests.fixtures_custodians import Token

REGION, CONTEXT = "uk", b"portvault/root-key/v1/uk/1"


@pytest.fixture
async def custodian(
    custodian_address: str, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Custodian]:
    """Open the custodian."""
    made = open_custodian(custodian_address)
    if "moving" in request.node.callspec.id:
        made = MovingCustodian(made, open_custodian(f"file:{tmp_path}/before"))
    await made.check()
    yield made
    await made.close()


async def test_what_was_wrapped_comes_back_in_its_context_only(custodian: Custodian) -> None:
    """The key comes back; another context, generation, region or a flipped bit opens nothing."""
    for generation in (1, 2):
        await custodian.create(REGION, generation)
    key = wrap.new_key()
    wrapped = await custodian.wrap(REGION, 1, key, CONTEXT)
    assert key not in wrapped
    assert await custodian.unwrap(REGION, 1, wrapped, CONTEXT) == key
    assert await custodian.wrap(REGION, 1, key, CONTEXT) != wrapped
    wrong = [(1, wrapped, CONTEXT + b"0"), (2, wrapped, CONTEXT), (1, wrapped[:-1], CONTEXT)]
    for place in (0, 1, 20, len(wrapped) - 1):
        flipped = bytearray(wrapped)
        flipped[place] ^= 1
        wrong.append((1, bytes(flipped), CONTEXT))
    for generation, sealed, context in wrong:
        with pytest.raises(IntegrityError):
            await custodian.unwrap(REGION, generation, sealed, context)
    await custodian.create("sg", 1)
    with pytest.raises(IntegrityError):
        await custodian.unwrap("sg", 1, wrapped, CONTEXT)


async def test_destroyed_is_destroyed_for_good(custodian: Custodian) -> None:
    """A destroyed generation opens nothing and is not listed; its number is never used again."""
    for generation in (1, 2, 3):
        await custodian.create(REGION, generation)
    key = wrap.new_key()
    wrapped = [await custodian.wrap(REGION, n, key, CONTEXT) for n in (1, 2, 3)]
    await custodian.destroy(REGION, 1)
    await custodian.destroy(REGION, 1)
    await custodian.destroy(REGION, 2)
    assert await custodian.generations(REGION) == [3]
    assert await custodian.last_destroyed(REGION) == 2
    for generation in (1, 2):
        with pytest.raises(KeyDestroyedError):
            await custodian.unwrap(REGION, generation, wrapped[generation - 1], CONTEXT)
        with pytest.raises(KeyDestroyedError):
            await custodian.create(REGION, generation)
    assert await custodian.unwrap(REGION, 3, wrapped[2], CONTEXT) == key
    await custodian.destroy("sg", 9)
    await custodian.create(REGION, 4)


async def test_gone_is_said_only_of_what_was_destroyed(custodian: Custodian) -> None:
    """What was destroyed is said to be, whatever the bytes; what was never made is missing."""
    for generation in (1, 2):
        await custodian.create(REGION, generation)
    wrapped = await custodian.wrap(REGION, 1, wrap.new_key(), CONTEXT)
    await custodian.destroy(REGION, 1)
    for sealed in (wrapped, b"", bytes(61), wrapped[:-1] + bytes([wrapped[-1] ^ 1])):
        with pytest.raises(KeyDestroyedError):
            await custodian.unwrap(REGION, 1, sealed, CONTEXT)
        with pytest.raises(IntegrityError):
            await custodian.unwrap(REGION, 2, sealed, CONTEXT)
        with pytest.raises(KeyMissingError, match="generation 7 of uk"):
            await custodian.unwrap(REGION, 7, sealed, CONTEXT)
    with pytest.raises(KeyMissingError):
        await custodian.wrap(REGION, 7, wrap.new_key(), CONTEXT)
    assert await custodian.returned(REGION) == []


async def test_creating_again_changes_nothing(custodian: Custodian) -> None:
    """A key that is there stays what it is, also when many make it at once."""
    await asyncio.gather(*(custodian.create(REGION, 1) for _ in range(4)))
    key = wrap.new_key()
    wrapped = await custodian.wrap(REGION, 1, key, CONTEXT)
    await custodian.create(REGION, 1)
    assert await custodian.unwrap(REGION, 1, wrapped, CONTEXT) == key
    assert await custodian.generations(REGION) == [1]


async def test_another_process_finds_the_same_keys(
    custodian: Custodian, custodian_address: str
) -> None:
    """Opened anew from its address, it opens what was wrapped before."""
    await custodian.create(REGION, 1)
    key = wrap.new_key()
    wrapped = await custodian.wrap(REGION, 1, key, CONTEXT)
    again = open_custodian(custodian_address)
    await again.check()
    assert await again.unwrap(REGION, 1, wrapped, CONTEXT) == key
    await again.close()


async def test_it_says_who_it_is_and_what_its_destroy_is_worth(custodian: Custodian) -> None:
    """Name and promise hold no secret, and neither does its representation."""
    await custodian.create(REGION, 1)
    assert custodian.destroy_level == 0
    assert custodian.destroy_promise.endswith(".")
    for text in (custodian.name, repr(custodian), custodian.destroy_promise):
        assert "pin" not in text.lower().replace("keeping", "")
        assert "passphrase" not in text


@pytest.mark.parametrize(
    "address, says",
    [
        ("paper:/drawer", "known are file:, pkcs11:"),
        ("file:keys", "file:/absolute/directory"),
        ("file:/keys?password=1", "passphrase-file"),
        ("pkcs11:token=x", "module-path"),
        ("pkcs11:?module-path=/x.so", "which token"),
        ("pkcs11:token=x?module-path=/x.so&pin-value=1234", "file that only you can read"),
        ("pkcs11:token=x;slot=1?module-path=/x.so", "slot"),
        ("pkcs11:token=x;object=k?module-path=/x.so", "{region}"),
        ("transit:https://bao.example", "transit:https://HOST:8200/MOUNT"),
        ("transit:https://bao.example/transit", "token-file"),
        ("transit:https://bao.example/transit?token=1234", "token-file"),
        ("transit:https://x:1234@bao.example/transit?token-file=/x", "token-file"),
        ("transit:http://bao.example/transit?token-file=/x", "https: only"),
    ],
)
def test_an_address_that_is_wrong_says_what_is_right(address: str, says: str) -> None:
    """Every mistake is named, and a PIN in an address is refused without being shown."""
    with pytest.raises(CustodianConfigurationError) as error:
        open_custodian(address)
    assert says in str(error.value)
    assert "1234" not in str(error.value)


async def test_a_wrong_pin_is_tried_once(token: Token) -> None:
    """Three wrong PINs lock many a token, so a refused one is not sent again."""
    token.write_pin("9999")
    custodian = open_custodian(token.address)
    for _ in range(2):
        with pytest.raises(CustodianConfigurationError, match="PIN"):
            await custodian.check()
    await custodian.close()


async def test_a_token_that_is_not_there_is_named(token: Token) -> None:
    """A label that no token has, and a library that is missing, say what to look for."""
    address = token.address.replace("token=portvault", "token=harbour")
    custodian = open_custodian(address)
    with pytest.raises(Exception, match="harbour"):
        await custodian.check()
    await custodian.close()
    custodian = open_custodian(token.address.replace("libsofthsm2", "libnothing"))
    with pytest.raises(CustodianConfigurationError, match="libnothing"):
        await custodian.check()
    await custodian.close()
