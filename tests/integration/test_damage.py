"""One thing of each sort is damaged at rest: how it is answered, found and mended."""

import logging
from typing import Any
from uuid import UUID

import pytest
from aiohttp import ClientPayloadError

from tests.fixtures_server import SAMPLES, Api
from tests.fixtures_telefax import Faxes
from vault.context import Vault

PROBLEM = "urn:portvault:problem:damaged"
FLIP = "set_byte({0}, 20, get_byte({0}, 20) # 1)"


async def test_each_sort_of_damage_has_its_own_answer(
    api: Api, vault: Vault, faxes: Faxes, fax: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """It says that it is damaged, not where; the record and the vault's log say what it met."""
    objects = vault.config.home / "objects" / "uk" / "documents"
    order = await api.order()
    data = (SAMPLES / "passport-uto.jpg").read_bytes()
    for table, name, damage in _SORTS:
        status, body = await api.put(order, data if table == "large" else data[:50_000])
        assert status == 201, body
        thing = body["id"]
        if table == "fax":
            status, taken = await faxes.send(fax)
            assert status == 201, taken
            thing = taken["id"]
        if table in {"object", "large"}:
            path = objects / thing
            path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
        elif table == "data_key" and not name:
            await vault.pool.execute("delete from data_key where id = $1", UUID(thing))
        else:
            flip = f"update {table} set {name} = {FLIP.format(name)} where id = $1"
            await vault.pool.execute(flip, UUID(thing))
        caplog.clear()
        with caplog.at_level(logging.CRITICAL):
            if table == "fax":
                status, answer, _ = await faxes.content(thing)
                _, shown = await faxes.show(thing)
                assert shown["state"] == "queued", shown
                assert "damaged" in shown["result"]
                assert "portvault repair" in shown["result"]
            else:
                status, answer = await api.get(thing)
        assert (status, answer.get("type")) == (503, PROBLEM), (table, name, answer)
        assert thing not in str(answer)
        (said,) = [item.message for item in caplog.records if item.levelno == logging.CRITICAL]
        assert thing in said
        place = "data_key" if table == "data_key" else "object documents/"
        assert (f"{table}.{name} of {thing}" if name else place) in said
        assert await _outcome(vault, UUID(thing)) == ("failed", "damaged", 0)
    counted = len(_SORTS)
    _, text, _ = await api.call("GET", "/metrics")
    assert f'portvault_damage_met{{region="uk"}} {counted}.0' in text.decode()
    # What lies beside it is none the worse; where the end is damaged, no end is made of it.
    late = (await api.put(order, data))[1]["id"]
    assert (await api.get(late))[1] == data
    sealed = (objects / late).read_bytes()
    (objects / late).write_bytes(_flip(-1)(sealed))
    with pytest.raises(ClientPayloadError):
        await api.get(late)


async def test_an_order_whose_details_are_damaged_says_so(api: Api, vault: Vault) -> None:
    """Neither damage nor a lost key is taken for details that were shredded."""
    order, other = await api.order(), await api.order()
    flip = f"update porting_order set details = {FLIP.format('details')} where id = $1"
    await vault.pool.execute(flip, UUID(order))
    await vault.pool.execute("delete from data_key where id = $1", UUID(other))
    path = f"/v1/orders/{order}/actions/correct"
    status, answer, _ = await api.call("POST", path, json={"type": "full"})
    assert (status, answer["type"]) == (503, PROBLEM), answer
    assert "nothing was handed out or kept" in answer["detail"]
    for identity in (order, other):
        status, answer, _ = await api.call("GET", f"/v1/orders/{identity}")
        assert (status, answer["type"]) == (503, PROBLEM)


def _flip(at: int) -> Any:
    def flipped(data: bytes) -> bytes:
        changed = bytearray(data)
        changed[at] ^= 1
        return bytes(changed)

    return flipped


_SORTS: list[tuple[str, str, Any]] = [
    ("document", "stream_header", None),
    ("document", "metadata", None),
    ("data_key", "wrap", None),
    ("data_key", "", None),
    ("fax", "stream_header", None),
    ("fax", "metadata", None),
    ("object", "", None),
    ("object", "", _flip(30)),
    ("object", "", _flip(20_000)),
    ("large", "", _flip(20_000)),
    ("object", "", lambda data: data[:-1]),
    ("object", "", lambda data: data[:40]),
    ("object", "", lambda _: b""),
]


async def _outcome(vault: Vault, document: UUID) -> tuple[str, str, int]:
    (row,) = await vault.pool.fetch(
        """
        select result, reason, size_bytes from access_record where document = $1
            and action in ('document.read', 'fax.read') and phase = 'outcome'
        """,
        document,
    )
    return row["result"], row["reason"], row["size_bytes"] or 0
