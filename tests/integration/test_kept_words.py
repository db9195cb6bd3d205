"""No name that somebody types reaches the log, a certificate, a receipt or a signal."""

import asyncio
import json
import re
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.fixtures_server import SAMPLES, Api, serving
from tests.integration.test_everything_is_recorded import BODY, QUERY, example
from vault.actions.certificates import certify
from vault.actions.keys import mark_sealed, seal, worker
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.shred import purge_shredded
from vault.config.webhooks import Webhook
from vault.context import Vault
from vault.domain.access import Action, Purpose, Role
from vault.domain.approvals import Act
from vault.domain.certificates import (
    NOT_COVERED,
    ORDER_NOT_COVERED,
    SHRED_REASONS,
    parse_certificate,
)
from vault.domain.decision import Reason
from vault.domain.documents import Kind
from vault.domain.orders import Status
from vault.domain.records import PHASES, Record
from vault.domain.regions import REGIONS
from vault.domain.signals import SignalType
from vault.sql.session import ADDED_TO
from vault.web.routes import ROUTES, Route
from vault.web.schemas import SCHEMAS

NAME = "John Smith"
#: Where something stands for ever, or longer than what it is about.
KEPT = ("access_record", "log_leaf", "certificate", "order_certificate", "fax", "signal")


async def kept(vault: Vault) -> str:
    """Return all that stands in those tables."""
    found = []
    for table in KEPT:
        if await vault.pool.fetchval("select to_regclass($1) is not null", table):
            found += [row[0] for row in await vault.pool.fetch(f"select t::text from {table} t")]
    return "\n".join(found)


async def test_words_with_a_name_reach_nothing_that_stays(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """They are refused where they would stay, and kept apart where they would not."""
    order = await api.order()
    _, document = await api.put(order, passport)
    path = f"/v1/documents/{document['id']}"
    shred = f"{path}/actions/shred"
    assert (await api.call("POST", shred, json={"reason": f"asked by {NAME}"}))[0] == 422
    hold = {
        "region": "uk",
        "reason": f"a dispute of {NAME}",
        "authority": NAME,
        "documents": [document["id"]],
    }
    status, _, _ = await api.call("POST", "/v1/holds", json=hold, role="dpo")
    assert status == 201
    restrict = {"reason": f"{NAME} contests it"}
    assert (await api.call("POST", f"{path}/actions/restrict", json=restrict, role="dpo"))[0] == 200
    _, other = await api.put(order, passport)
    shred = f"/v1/documents/{other['id']}/actions/shred"
    assert (await api.call("POST", shred, json={"reason": "duplicate"}))[0] == 200
    await seal(vault, worker(vault), "uk")
    await asyncio.sleep(vault.config.key_cache_seconds)
    for step in (mark_sealed, purge_shredded, sequence_log, publish_log, certify):
        await step(vault, "uk")
    stays = await kept(vault)
    assert "duplicate" in stays
    assert "Smith" not in stays


@pytest.mark.parametrize("reason", ["Smith", "smith, twice"])
async def test_a_sentence_is_refused_with_what_to_say_instead(
    api: Api, passport: bytes, reason: str
) -> None:
    """The refusal names the codes, and does not repeat what was said."""
    _, document = await api.put(await api.order(), passport)
    shred = f"/v1/documents/{document['id']}/actions/shred"
    status, problem, _ = await api.call("POST", shred, json={"reason": reason})
    assert (status, "withdrawn" in problem["detail"]) == (422, True)
    assert reason not in problem["detail"]


# Every field of every route, with a name in it; then everything that is kept anywhere is read.

#: A name that stands nowhere by itself, as people would type it.
MARK = "quillfeather"
TYPED = ("Ada Quillfeather", "quillfeather")
#: Columns in which words of people stand in clear, as docs/attacks.md says, and go with their row.
WORDS = {
    ("hold", "reason"): "why a hold was placed, for who oversees it",
    ("hold", "authority"): "by whose word",
    ("hold", "release_reason"): "why it was released",
    ("hold_target", "customer"): "what the operator calls a customer",
    ("instruction", "customer"): "the same",
    ("porting_order", "customer"): "the same",
    ("restriction", "reason"): "why a document is restricted, for who oversees it",
    ("idempotency", "key"): "the client's word, for a day",
    ("fax", "idempotency_key"): "the same",
    ("carrier_order", "reference"): "what a carrier calls an order",
}
#: Who calls what, by the beginning of the path: whoever may, and somebody who may not.
ROLES = defaultdict(
    lambda: ("dpo", "porting"),
    orders=("porting",),
    documents=("porting", "dpo"),
    faxes=("fax-gateway", "dpo"),
    retention=("admin", "dpo", "porting"),
    log=("witness", "compliance"),
    approvals=("dpo", "porting"),
    signals=("admin",),
)
ROLES["break-glass"] = ("admin", "dpo")
ROLES["access-records"] = ("compliance", "porting")
#: What makes a route do something, beside what makes it understood.
HEADERS = {"Access-Purpose": "verify-identity", "Access-Reference": "C-7"}


@dataclass
class Walk:
    """Calls routes upon real things, as the first role that each route is for."""

    api: Api
    document: bytes
    called: int = 0

    async def thing(self, route: Route) -> str:
        """Make something that a route is about; returns its id."""
        if "/orders/" in route.path:
            return await self.api.order()
        if "/documents/" in route.path:
            _, made = await self.api.put(await self.api.order(), self.document)
        elif "/faxes/" in route.path:
            content = (SAMPLES / "fax-1p-g4.tif").read_bytes()
            path = f"/v1/faxes?{QUERY['/v1/faxes']}"
            _, made, _ = await self.api.call("POST", path, role="fax-gateway", data=content)
        elif "/holds/" in route.path:
            _, made, _ = await self.api.call("POST", "/v1/holds", role="dpo", json=BODY["NewHold"])
        else:
            return str(uuid.uuid4())
        return str(made["id"])

    async def body(self, route: Route, thing: str) -> Any:
        """Return a body that the route takes; None where it takes no JSON."""
        if route.body not in SCHEMAS:
            return None
        body = BODY.get(route.body) or example(SCHEMAS[route.body])
        if route.body != "HoldRelease":
            return body
        asked = {"act": "hold.release", "subject": thing, "region": "uk", "reason": "case-closed"}
        _, approval, _ = await self.api.call("POST", "/v1/approvals", role="dpo", json=asked)
        path = f"/v1/approvals/{approval['id']}/actions/approve"
        assert (await self.api.call("POST", path, role="compliance"))[0] == 200
        return body | {"approval": approval["id"]}

    async def call(
        self,
        route: Route,
        role: str,
        thing: str,
        *,
        body: Any = None,
        query: dict[str, str] | None = None,
        headers: dict[str, str] | None = None,
    ) -> int:
        """Call a route with what makes it do something, and with more; returns the status."""
        self.called += 1
        path = route.path.replace("{path:.+}", "0/000.p/1").replace("{region}", "uk")
        needed = "" if (route.method, path) == ("GET", "/v1/faxes") else QUERY.get(route.path, "")
        known = {name: value[0] for name, value in parse_qs(needed).items()}
        sent: dict[str, Any] = {} if body is None else {"json": body}
        if route.body == "file":
            sent["data"] = (SAMPLES / "fax-1p-g4.tif").read_bytes()
        understood = {name: value for name, value in HEADERS.items() if name in route.headers}
        status, _, _ = await self.api.call(
            route.method,
            path.replace("{id}", thing),
            role=role,
            params=known | (query or {}),
            headers=understood | (headers or {}),
            **sent,
        )
        return status


def leaves(schema: Any, value: Any) -> Iterator[Any]:
    """Yield the values of a schema that hold some text once, in each place that there is."""
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "array":
        for item in leaves(schema["items"], value):
            yield [item]
    elif kind == "object":
        for name, below in schema.get("properties", {}).items():
            for item in leaves(below, value):
                yield {name: item}
    else:
        yield value


async def told(walk: Walk, route: Route, typed: str) -> None:
    """Call a route with a text in each field of its body, its query and its headers, in turn."""
    thing = await walk.thing(route)
    good = await walk.body(route, thing)
    # Fields before the call that succeeds: what it ends takes no more of them.
    for role in ROLES[route.path.split("/")[2]]:
        for field in leaves(SCHEMAS[str(route.body)], typed) if good is not None else ():
            await walk.call(route, role, thing, body=good | field)
        for name in route.query:
            await walk.call(route, role, thing, body=good, query={name: typed})
        for name in route.headers:
            await walk.call(route, role, thing, body=good, headers={name: typed})
        await walk.call(route, role, thing, body=good)


async def finished(vault: Vault) -> None:
    """Let the worker do all that follows, up to certificates."""
    await seal(vault, worker(vault), "uk")
    await asyncio.sleep(vault.config.key_cache_seconds)
    for step in (mark_sealed, purge_shredded, sequence_log, publish_log, certify):
        await step(vault, "uk")
    for step in (sequence_log, publish_log):
        await step(vault, "uk")


async def rows_with(vault: Vault, text: str) -> set[tuple[str, str]]:
    """Return every column of every table in which a text stands."""
    columns = await vault.pool.fetch(
        "select table_name, column_name, data_type from information_schema.columns"
        " where table_schema = 'public'"
    )
    by_table = defaultdict[str, dict[str, str]](dict)
    for table, name, kind in columns:
        text_of = f"encode(\"{name}\", 'escape')" if kind == "bytea" else f'"{name}"::text'
        by_table[table][text_of] = name
    found = set()
    for table, names in by_table.items():
        tests = ", ".join(f"coalesce(bool_or({text_of} ilike $1), false)" for text_of in names)
        row = await vault.pool.fetchrow(f'select {tests} from "{table}"', f"%{text}%")
        assert row is not None
        found |= {
            (table, names[text_of]) for text_of, there in zip(names, row, strict=True) if there
        }
    return found


ID = r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
TIME = r"[-0-9]+T[0-9:.]+Z"
CASE = r"[A-Za-z0-9._/#-]*[0-9][A-Za-z0-9._/#-]*"
#: The words of the vault's own of which a reason is made; all others in it are ids or numbers.
OWN = (
    *(word for kinds in (Reason, Act, Purpose, Role, Status, Kind) for word in kinds),
    *(*SHRED_REASONS, *SCHEMAS["OrderCorrection"]["properties"]),
    *("linked", "queued", "already", "sealed", "to", "covers", "damaged", "mended", "recovered"),
)
OWN_WORD = "|".join(map(re.escape, OWN))
CODE = rf"({OWN_WORD}|([A-Z][a-z]+)+Error|([a-z-]+[:/])?({ID}|[0-9a-f]{{64}})|{CASE})"
PRINCIPAL = r"worker|(token|break-glass|carrier):[a-z0-9-]+|person:[0-9a-f]{32}|operator:\S+"


def one_of(words: Iterable[str]) -> str:
    """Return the pattern of an enumeration."""
    return "|".join(map(re.escape, words))


#: What each field of an access record may be. A new field needs its shape here, and has no words.
SHAPES = {
    "id": ID,
    "region": one_of(REGIONS),
    "at": r"[-0-9: .+]+",
    "phase": one_of(PHASES),
    "principal": PRINCIPAL,
    "role": one_of((*Role, "worker", "operator")),
    "action": one_of(Action),
    "intent": ID,
    "document": ID,
    "order": ID,
    "kind": one_of((*Kind, "fax")),
    "purpose": r"[a-z-]+",
    # Of the outcome of an order's event, when it occurred.
    "reference": rf"approval/{ID}|{CASE}|{TIME}",
    "region_to": one_of(REGIONS),
    "basis": r"[a-z0-9-]+@[0-9]+|[a-z-]+",
    "decision": "allow|deny",
    "reason": rf"{CODE}( {CODE})*",
    "result": "completed|failed|aborted",
    "size_bytes": r"[0-9]+",
}


async def check_records(vault: Vault) -> None:
    """Compare each field of each record with its shape."""
    assert set(SHAPES) == {field.name for field in fields(Record)}
    wrong, used = set(), set()
    for row in await vault.pool.fetch("select * from access_record"):
        said = {name: str(value) for name, value in row.items() if value is not None}
        used |= set(said)
        wrong |= {item for item in said.items() if not re.fullmatch(SHAPES[item[0]], item[1])}
    assert wrong == set()
    assert used == set(SHAPES)


#: What the texts of certificates and signals may be, by the name of their field; all others are no
#: text. What the policy and the custodian say is the operator's own and the same for all.
TEXTS = {
    **dict.fromkeys(("document", "order", "hold", "replaced_by"), ID),
    **dict.fromkeys(("principal", "approved_by"), PRINCIPAL),
    "applied_by": rf"first-start|{PRINCIPAL}",
    "kind": SHAPES["kind"],
    "region": SHAPES["region"],
    "ground": r"[a-z-]+",
    "reason": SHAPES["reason"],
    "against_floor": "sent by mistake",
    "row": r"[a-z0-9-]+",
    "citation": r"(?s).*",
    "method": r"cryptographic erase: [a-z ]+",
    "custodian": r"file:.*",
    "custodian_destroy_promise": r".*",
    "stream_header": r"[A-Za-z0-9+/=]+",
    "log_checkpoint": r"(?s).*",
    "not_covered": one_of(ORDER_NOT_COVERED + NOT_COVERED),
    "status": one_of(Status),
    "certificate_sha256": "[0-9a-f]{64}",
    "type": one_of(SignalType),
    "timestamp": TIME,
    "reads": "[0-9]+",
    "level": "near|reached",
}


def texts(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text within JSON with the name of its field."""
    if isinstance(value, dict):
        for key, below in value.items():
            yield from texts(below, key)
    elif isinstance(value, list):
        for item in value:
            yield from texts(item, name)
    elif isinstance(value, str):
        yield name, value


async def check_documents(vault: Vault) -> None:
    """Compare each text of each certificate and signal with its shape."""
    found: list[Any] = []
    for table in ("certificate", "order_certificate"):
        notes = await vault.pool.fetch(f"select note from {table}")
        found += [parse_certificate(row["note"]) for row in notes]
    assert found
    payloads = await vault.pool.fetch("select payload from signal")
    assert payloads
    found += [json.loads(row["payload"]) for row in payloads]
    said = {item for made in found for item in texts(made)}
    shapes = TEXTS | {name: TIME for name, _ in said if name.endswith(("_at", "_since"))}
    assert {
        item for item in said if not re.fullmatch(shapes.get(item[0], "(?!)"), item[1])
    } == set()


async def test_no_field_of_any_route_brings_a_name_to_what_stays(
    vault: Vault, passport: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Each field of each route, of body, query and headers: only the columns above have it."""
    endpoint = {"porting": Webhook("https://porting.example", "secret")}
    vault = replace(vault, config=replace(vault.config, webhooks=endpoint))
    async with serving(vault) as api:
        walk = Walk(api, passport)
        for route in ROUTES:
            if not route.public:
                for typed in TYPED:
                    await told(walk, route, typed)
        _, counted, _ = await api.call("GET", "/metrics")
        assert MARK.encode() not in bytes(counted).lower()
    await finished(vault)
    await check_records(vault)
    await check_documents(vault)
    found = await rows_with(vault, MARK)
    assert found == set(WORDS)
    assert not {table for table, _ in found} & {*ADDED_TO, "certificate", "signal"}
    files = [path for path in Path(vault.config.home).rglob("*") if path.is_file()]
    assert any(path.match("log/tile/entries/*/*") or "log" in path.parts for path in files)
    for path in files:
        content = path.read_bytes().lower()
        assert MARK.encode() not in content, path
    assert MARK not in caplog.text.lower()
