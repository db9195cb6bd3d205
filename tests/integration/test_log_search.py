"""The questions compliance asks of the log: one call each, and one command each."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from tests.access_records import append
from tests.fixtures_server import OPERATOR, Api
from vault.actions.log_publish import publish_log, sequence_log
from vault.actions.log_records import list_records
from vault.actions.people import forget_name
from vault.audit.auditor import Audit
from vault.commands import log as log_commands
from vault.commands.parser import make_parser
from vault.context import Vault
from vault.domain.access import Action, Principal
from vault.domain.records import Wanted
from vault.errors import NotFoundError
from vault.sql import access as access_sql
from vault.sql.connection import transaction

START = datetime(2025, 3, 1, tzinfo=UTC)
DOCUMENT, ORDER, UNKNOWN = UUID(int=1), UUID(int=2), UUID(int=3)


async def ask(api: Api, query: str, role: str = "compliance") -> tuple[int, Any]:
    """Ask for records of the region; returns the status and the answer."""
    status, body, _ = await api.call("GET", f"/v1/access-records?region=uk&{query}", role=role)
    return status, body


async def found(api: Api, query: str) -> list[str]:
    """Return the references of what is found, in the order in which it comes."""
    status, body = await ask(api, query)
    assert status == 200, body
    return [row["reference"] for row in body["data"] if "reference" in row]


@pytest.fixture
async def filled(vault: Vault) -> Vault:
    """Give a log with one record of each kind that is asked for, a minute apart."""
    kinds: dict[str, dict[str, Any]] = {
        "T-1": {"document": DOCUMENT, "order": ORDER, "decision": "allow"},
        "T-2": {"order": ORDER, "principal": "token:y", "decision": "allow"},
        "T-3": {"purpose": "verify-identity", "decision": "allow"},
        "T-4": {"decision": "deny", "reason": "role-may-not"},
        "T-5": {"region_to": "sg", "basis": "scc", "decision": "allow"},
        "T-6": {"region_to": "uk", "basis": "same-region", "decision": "allow"},
        "T-7": {"action": Action.KEYS_SEAL.value, "decision": "allow"},
    }
    for number, (reference, fields) in enumerate(kinds.items()):
        at = START + timedelta(minutes=number)
        await append(vault, 1, reference=reference, at=at, **fields)
    await append(vault, 1, "sg", reference="T-8", document=DOCUMENT, at=START)
    await sequence_log(vault, "uk")
    await sequence_log(vault, "sg")
    return vault


async def test_each_question_has_its_answer(api: Api, filled: Vault) -> None:
    """Everything about a document, a person, a purpose; refusals; transfers; newest first."""
    for query, references in [
        (f"document={DOCUMENT}", ["T-1"]),
        (f"order={ORDER}", ["T-2", "T-1"]),
        ("principal=token:y", ["T-2"]),
        ("purpose=verify-identity", ["T-3"]),
        ("refused=true", ["T-4"]),
        ("transfers=true", ["T-5"]),
        ("action=keys.seal", ["T-7"]),
        (f"order={ORDER}&action=document.read&principal=token:x", ["T-1"]),
        ("to=2025-03-01T00:03:00Z", ["T-3", "T-2", "T-1"]),
        ("from=2025-03-01T00:05:00Z&to=2025-03-02", ["T-7", "T-6"]),
        ("from=2025-03-01T01:05:00%2B01:00&to=2025-03-01T00:06:00", ["T-6"]),
        (f"order={ORDER}&to=2025-03-01", []),
    ]:
        assert await found(api, query) == references


async def command(
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *options: str,
) -> list[dict[str, Any]]:
    """Ask with `portvault log search`; returns the records that it prints."""
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["compliance"])
    args = make_parser().parse_args(["log", "search", "--region", "uk", "--json", *options])
    await log_commands.search(args)
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


async def test_each_question_is_one_command(
    api: Api, filled: Vault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a call answers, a command answers too."""
    for options, references in [
        (["--document", str(DOCUMENT)], ["T-1"]),
        (["--order", str(ORDER)], ["T-2", "T-1"]),
        (["--principal", "token:y"], ["T-2"]),
        (["--purpose", "verify-identity"], ["T-3"]),
        (["--refused"], ["T-4"]),
        (["--transfers"], ["T-5"]),
        (["--action", "keys.seal"], ["T-7"]),
        (["--from", "2025-03-01T00:05:00Z", "--to", "2025-03-02"], ["T-7", "T-6"]),
        (["--order", str(ORDER), "--principal", "token:x", "--to", "2025-03-02"], ["T-1"]),
    ]:
        found = await command(api, monkeypatch, capsys, *options)
        assert [row["reference"] for row in found if "reference" in row] == references


async def test_a_table_shows_what_was_asked_about(
    api: Api, filled: Vault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of transfers from where to where and on which basis; of a purpose whether bytes went out."""
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["compliance"])
    for options, cells in [
        (["--transfers"], {"region": "uk", "region_to": "sg", "basis": "scc"}),
        (["--purpose", "verify-identity"], {"reference": "T-3", "outcome": "-"}),
    ]:
        args = make_parser().parse_args(["log", "search", "--region", "uk", *options])
        await log_commands.search(args)
        names, row = (line.split() for line in capsys.readouterr().out.splitlines())
        assert set(cells) <= {name.lower() for name in names}
        assert set(cells.values()) <= set(row)


async def test_a_command_reads_on_to_the_end(
    api: Api, vault: Vault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than a page comes in one order, each once; `--limit` stops it and says so."""
    made = [await append(vault, 150, principal="token:z", at=START) for _ in range(3)]
    await sequence_log(vault, "uk")
    found = await command(api, monkeypatch, capsys, "--principal", "token:z")
    expected = sorted((item.id for batch in made for item in batch), reverse=True)
    assert [row["id"] for row in found] == [str(item) for item in expected]
    found = await command(api, monkeypatch, capsys, "--principal", "token:z", "--limit", "250")
    assert [row["id"] for row in found] == [str(item) for item in expected[:250]]


async def test_a_filter_that_is_mistyped_finds_nothing(api: Api, filled: Vault) -> None:
    """What is no filter, or no value of it, is refused by name and never widens the answer."""
    for query, names in [
        ("colour=red", "colour"),
        ("document=x", "document"),
        ("order=7", "order"),
        ("purpose=curiosity", "purpose"),
        ("action=read", "near it are log.read"),
        ("refused=yes", "refused"),
        ("transfers=1", "transfers"),
        ("from=yesterday", "from"),
        ("to=2025-13-01", "to"),
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("cursor=x", "cursor"),
    ]:
        status, body = await ask(api, query)
        assert (status, names in body["detail"]) == (422, True), body


@pytest.mark.parametrize(
    "query, status, says",
    [
        (f"document={UNKNOWN}", 404, "never was this document"),
        (f"order={UNKNOWN}", 404, "never was this order"),
        ("principal=token:nobody", 404, "never was this principal"),
        ("principal=nobody", 404, "never was this principal"),
        ("principal=desk", 422, "2 principals were called so"),
        ("from=2999-01-01", None, "from"),
        ("from=2025-03-02&to=2025-03-01", 422, "later than from"),
        ("region=sg&transfers=true", 404, "was ever in sg"),
        ("region=sg&action=document.read&purpose=verify-identity", 404, "was ever in sg"),
    ],
)
async def test_a_filter_that_nothing_can_fit_says_so(
    api: Api, filled: Vault, query: str, status: int | None, says: str
) -> None:
    """An empty list would be taken for the word that nobody did it; an order elsewhere is named."""
    for principal in ("token:a", "token:b"):
        async with transaction(filled.pool) as conn:
            await access_sql.note_name(conn, principal, "desk", START)
    region = "" if "region=" in query else "region=uk&"
    found = await api.call("GET", f"/v1/access-records?{region}{query}", role="compliance")
    assert (found[0], says in found[1]["detail"]) == (status or 422, True), found[1]


async def test_what_lies_in_another_region_is_looked_for_there(api: Api, vault: Vault) -> None:
    """Who may see both is told where; who may not is told as much as of what never was."""
    order = await api.order("sg", role="porting-sg")
    status, body = await ask(api, f"order={order}")
    assert (status, "lies in sg" in body["detail"]) == (404, True)
    one = Principal("token:one", "compliance", frozenset({"uk"}))
    with pytest.raises(NotFoundError, match="never was"):
        await list_records(
            vault, one, region="uk", wanted=Wanted(order=UUID(order)), cursor=None, limit=9
        )


async def exported(api: Api, role: str, more: str = "") -> bytes:
    """Export what was filled in."""
    url = f"{api.url}/v1/access-records/export?region=uk&to=2025-03-02{more}"
    headers = {"Authorization": f"Bearer {api.tokens[role]}"}
    async with api.session.get(url, headers=headers) as response:
        assert response.status == 200
        return await response.read()


async def test_who_stands_there_by_the_name_of_then(
    api: Api, filled: Vault, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A token that was renamed since, or is gone: what it did then has the label of then."""
    for minute, name in ((0, "desk-1"), (2, "desk-2")):
        async with transaction(filled.pool) as conn:
            await access_sql.note_name(conn, "token:x", name, START + timedelta(minutes=minute))
    _, body = await ask(api, "principal=desk-2&to=2025-03-02")
    shown = {row["reference"]: row["principal_name"] for row in body["data"]}
    assert (shown["T-1"], shown["T-3"], shown["T-7"]) == ("desk-1", "desk-2", "desk-2")
    assert {row["principal"] for row in body["data"]} == {"token:x"}
    await publish_log(filled, "uk")
    for role, known in (("compliance", True), ("auditor", False)):
        lines = await exported(api, role)
        assert (b'"principal_name":"desk-1","record":' in lines) == known
        made = Audit(filled.signer.vkey)
        for line in io.BytesIO(lines):
            made.take(line)
        assert made.verdict()["findings"] == []
        assert (b"desk-1" in await exported(api, role, "&format=csv")) == known
    # As a table, too; and when it is taken away, the id is what stays.
    monkeypatch.setenv("PORTVAULT_SERVER", api.url)
    monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens["compliance"])
    args = make_parser().parse_args(["log", "search", "--region", "uk", "--principal", "desk-1"])
    await log_commands.search(args)
    assert "desk-2" in capsys.readouterr().out
    assert await forget_name(filled, OPERATOR, "token:x") == 2
    _, body = await ask(api, "principal=token:x")
    assert not any("principal_name" in row for row in body["data"])
    with pytest.raises(NotFoundError):
        await forget_name(filled, OPERATOR, "token:x")


async def test_every_principal_that_is_made_has_its_name(api: Api, vault: Vault) -> None:
    """What a token does is found by its label, from the record of its making on."""
    await api.order()
    _, body = await ask(api, "principal=porting&action=order.create")
    assert {row["principal_name"] for row in body["data"]} == {"porting"}
    assert len(body["data"]) == 2


async def test_a_purpose_says_whether_bytes_went_out(
    api: Api, vault: Vault, passport: bytes
) -> None:
    """Of each reading: all of it, nothing, or that it was refused; and where it went, and why."""
    _, document = await api.put(order := await api.order(), passport)
    why = {"Access-Purpose": "verify-identity"}
    assert (await api.get(document["id"]))[0] == 200
    assert (await api.call("GET", f"/v1/orders/{order}/numbers", headers=why))[0] == 200
    await vault.pool.execute("update document set restricted_at = now()")
    assert (await api.get(document["id"]))[0] == 423
    for _ in range(2):
        _, body = await ask(api, "purpose=verify-identity")
        found = [(row["outcome"], row["outcome_bytes"]) for row in body["data"]]
        assert found == [("refused", 0), ("bytes", 13), ("bytes", len(passport))]
        # Whether it has its place already or not.
        await sequence_log(vault, "uk")
    _, body = await ask(api, f"order={order}&action=document.read")
    assert [row.get("outcome") for row in body["data"]] == ["refused", None, "bytes"]


async def test_pages_stay_stable_while_records_come_in(api: Api, filled: Vault) -> None:
    """Paging shows each record once in one order, whatever is added meanwhile."""
    seen: list[str] = []
    cursor = ""
    while True:
        status, body = await ask(api, f"limit=2&to=2025-03-02{cursor}")
        assert status == 200
        seen += [row["reference"] for row in body["data"]]
        if body["next_cursor"] is None:
            break
        cursor = f"&cursor={body['next_cursor']}"
        await append(filled, 1, reference="T-9", at=START + timedelta(hours=1))
        await sequence_log(filled, "uk")
    assert seen == [f"T-{number}" for number in range(7, 0, -1)]


async def test_an_answer_says_where_a_record_stands(api: Api, filled: Vault) -> None:
    """With each record comes its place in the log, as a proof of it needs it."""
    _, body = await ask(api, f"document={DOCUMENT}")
    (row,) = body["data"]
    place = await filled.pool.fetchval("select index from log_leaf where record = $1", row["id"])
    assert (row["index"], row["region"], row["at"]) == (place, "uk", "2025-03-01T00:00:00Z")


async def test_looking_is_recorded_with_what_was_looked_for(api: Api, filled: Vault) -> None:
    """The search itself is found afterwards under the document it was about; and by whom."""
    await ask(api, f"document={DOCUMENT}")
    await sequence_log(filled, "uk")
    _, body = await ask(api, f"document={DOCUMENT}&action=log.read")
    assert {row["role"] for row in body["data"]} == {"compliance"}
    assert [row["phase"] for row in body["data"]] == ["outcome", "intent"]


async def test_only_compliance_may_ask(api: Api, filled: Vault) -> None:
    """Who reads documents does not read the log, and the refusal is a record."""
    status, _ = await ask(api, "refused=true", role="porting")
    assert status == 403
    await sequence_log(filled, "uk")
    _, body = await ask(api, "refused=true&action=log.read")
    assert [row["role"] for row in body["data"]] == ["porting"]


async def test_filters_narrow_each_other(api: Api, filled: Vault) -> None:
    """Several filters must all fit, also where nothing does."""
    assert await found(api, f"document={DOCUMENT}&refused=true") == []
