"""On a terminal of 80 columns every table and report fits, and every id stands in it whole."""

import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures_server import NUMBERS, OPERATOR, Api, serving
from tests.integration.test_everything_is_recorded import ALL, RETENTION
from vault.actions.credentials import list_tokens, rename_token
from vault.app import open_vault
from vault.commands.parser import make_parser
from vault.config.settings import Config
from vault.context import Vault
from vault.errors import VaultError

WIDTH = 80
LABEL = "the desk of the northern office, second floor, beside the stairs"
CUSTOMER = "a-customer-whose-id-is-as-long-as-it-may-be-at-all-0123456789abc"
REFERENCE = "their reference, which is long, and goes on for as long as it may " * 2
CARRIER = (
    "a carrier with a name that nobody would ever say in one breath, in any of its offices Ltd"
)
WORDS = (
    "a dispute about what was signed, by whom, and on which day of which month of that year " * 2
)
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d\S*")
#: What prints nothing that is laid out, and why.
EXEMPT = {
    "serve": "runs on",
    "worker": "runs on",
    "get": "prints nothing, or content",
    "log export": "writes a file, and says its name",
    "log receipt": "one short line",
    "log witness": "writes a file, or lines",
    "log rotate-key": "a sentence",
    "log forget-name": "a sentence",
    "log key": "a key, to be copied as it is",
    "certificate": "a signed note, to be copied as it is",
    "config": "TOML, to be copied as it is",
    "token create": "a token",
    "token revoke": "a sentence",
    "order create": "an id",
    "retention instruct": "an id",
    "hold place": "an id",
    "approval request": "an id",
    "break-glass seal": "a credential",
    "break-glass open": "a token",
    "backup": "a line",
    "restore": "has a test of its own, as has repair",
    "repair": "has a test of its own, as has restore",
    "keys rotate-custodian": "a sentence",
    "signal replay": "a line",
    "fax received": "an id",
    "fax drain": "ids",
    "fax outbound": "ids",
}

Run = Callable[..., Any]


def laid_out(out: str) -> list[str]:
    """Return the lines that are too wide for a reason other than one word that is."""
    return [line for line in out.splitlines() if len(line) > WIDTH and len(line.split()) > 1]


async def filled(vault: Vault, api: Api, passport: bytes, fax: bytes) -> dict[str, str]:
    """Put one of everything into a vault, under the longest names; returns their ids."""
    for row in await list_tokens(vault, OPERATOR):
        await rename_token(vault, OPERATOR, row["id"], f"{row['role']:>12} {LABEL}"[:64].strip())

    async def post(path: str, who: str, **body: Any) -> dict[str, Any]:
        status, said, _ = await api.call("POST", path, json=body, role=who)
        assert status in (200, 201), said
        return dict(said)

    details = {"customer_reference": REFERENCE[:128], "losing_carrier": CARRIER}
    order = await post(
        "/v1/orders",
        "porting",
        region="uk",
        customer=CUSTOMER,
        numbers=NUMBERS,
        gaining_carrier=CARRIER,
        **details,
    )
    name = {"Content-Disposition": f"attachment; filename*=UTF-8''{'n' * 120}.jpg"}
    _, document = await api.put(order["id"], passport, **name)
    _, gone = await api.put(order["id"], passport, kind="other", **name)
    hold = await post(
        "/v1/holds",
        "dpo",
        region="uk",
        reason=WORDS,
        authority=WORDS[:100],
        reference="C-" + "7" * 60,
        customers=[CUSTOMER],
        documents=[document["id"]],
        orders=[order["id"]],
    )
    why = {"reason": "contested"}
    await post(f"/v1/documents/{document['id']}/actions/restrict", "dpo", **why)
    given = {"region": "uk", "customer": CUSTOMER, "keep": "P3000D", "reference": "C-" + "8" * 60}
    instruction = await post("/v1/retention/instructions", "porting", **given)
    asked = {"act": "hold.release", "subject": hold["id"], "region": "uk", "reason": "case-closed"}
    approval = await post("/v1/approvals", "dpo", **asked)
    await post(f"/v1/approvals/{approval['id']}/actions/approve", "compliance")
    glass = {"act": "break-glass", "subject": "compliance/uk", "region": "uk", "days": 9}
    second = await post("/v1/approvals", "admin", reason="yearly", **glass)
    await post(f"/v1/approvals/{second['id']}/actions/approve", "dpo")
    await post(
        "/v1/break-glass",
        "admin",
        role="compliance",
        regions=["uk"],
        days=9,
        approval=second["id"],
    )
    query = "region=uk&direction=inbound&to=%2B442079460123&from=%2B442079460999"
    _, taken, _ = await api.call("POST", f"/v1/faxes?{query}", data=fax, role="fax-gateway")
    await vault.pool.execute(
        """
        with told as (
            insert into signal (id, region, type, at, payload)
            values ($1, 'uk', 'document.irrecoverable', now(), '{}') returning id)
        insert into signal_delivery (signal, endpoint, region, state, next_at, attempts,
            last_failure, number)
        select id, 'the-porting-system-of-the-group', 'uk', 'dead', now(), 12, $2, 1 from told
        """,
        uuid.uuid4(),
        WORDS,
    )
    await api.get(document["id"])
    await vault.pool.execute("update document set due_at = now() + interval '1 day'")
    return {
        "order": order["id"],
        "document": document["id"],
        "gone": gone["id"],
        "hold": hold["id"],
        "instruction": instruction["id"],
        "approval": approval["id"],
        "fax": taken["id"],
    }


def calls(ids: dict[str, str], scan: Path, policy: Path) -> list[tuple[str, str, list[str]]]:
    """Return each command with its role and its arguments, what ends something at last."""
    order, document, hold = ids["order"], ids["document"], ids["hold"]
    region = ["--region", "uk"]
    return [
        ("order list", "porting", []),
        ("order find", "porting", [*region, "--number", NUMBERS[0]]),
        ("order show", "porting", [order]),
        ("order numbers", "porting", [order, "--purpose", "submit-to-carrier"]),
        ("show", "dpo", [document]),
        ("put", "porting", [str(scan), str(scan), "--order", order, "--kind", "passport"]),
        ("fax list", "fax-gateway", []),
        ("fax show", "fax-gateway", [ids["fax"]]),
        ("retention explain", "dpo", [document]),
        ("retention plan", "dpo", ["--until", "2100-01-01"]),
        ("retention policy", "dpo", []),
        ("retention effect", "admin", [str(policy)]),
        ("retention apply", "admin", [str(policy)]),
        ("retention instructions", "dpo", []),
        ("hold list", "dpo", []),
        ("hold show", "dpo", [hold]),
        ("approval list", "dpo", []),
        ("break-glass list", "dpo", []),
        ("signal list", "admin", []),
        ("log tail", "compliance", region),
        ("log search", "compliance", region),
        ("log search", "compliance", [*region, "--transfers"]),
        ("log search", "compliance", [*region, "--purpose", "verify-identity"]),
        ("unrestrict", "dpo", [document, "--reason", "contested"]),
        ("restrict", "dpo", [document, "--reason", "contested"]),
        ("hold release", "dpo", [hold, "--reason", WORDS, "--approval", ids["approval"]]),
        ("approval approve", "compliance", [ids["approval"]]),
        ("approval decline", "compliance", [ids["approval"]]),
        ("approval withdraw", "dpo", [ids["approval"]]),
        ("retention resolve", "dpo", [ids["instruction"]]),
        ("retention withdraw", "dpo", [ids["instruction"]]),
        ("break-glass revoke", "dpo", ["GLASS"]),
        ("unrestrict", "dpo", [document, "--reason", "contested"]),
        ("correct", "porting", [document, "--kind", "national_id"]),
        ("order correct", "porting", [order, "--reference", REFERENCE[:100]]),
        ("order move", "porting", [order, "submitted"]),
        ("order complete", "porting", [order]),
        ("order cancel", "porting", [order]),
        ("shred", "dpo", [ids["gone"], "--reason", "withdrawn"]),
    ]


LOCAL: list[tuple[str, list[str]]] = [
    ("keys status", []),
    ("keys verify", []),
    ("keys seal", ["--force"]),
    ("log verify", []),
    ("token list", []),
    ("token rename", ["TOKEN", LABEL]),
    ("doctor", []),
    ("migrate", []),
]


async def test_every_table_and_report_fits_a_terminal(
    config: Config,
    passport: bytes,
    fax: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With names as long as they may be; no id is cut, and times have one form."""
    assert {*ALL} == {name for name, _, _ in calls(_ANY, Path(), Path())} | {
        *(name for name, _ in LOCAL),
        *EXEMPT,
    }
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    wide, told, refused = dict[str, list[str]](), dict[str, str](), dict[str, str]()

    async def run(name: str, arguments: list[str]) -> None:
        args = make_parser().parse_args([*name.split(), *arguments])
        # What is refused is said in a sentence, and no table.
        try:
            await args.run(args)
        except VaultError as error:
            refused[name] = str(error)
        told[name] = told.get(name, "") + capsys.readouterr().out
        if lines := laid_out(told[name]):
            wide[name] = lines

    scan = tmp_path / f"{'a long name of a scan ' * 4}.jpg"
    scan.write_bytes(passport)
    async with open_vault(config) as vault, serving(vault) as api:
        ids = await filled(vault, api, passport, fax)
        policy = tmp_path / "retention.toml"
        policy.write_text(RETENTION)
        monkeypatch.setenv("PORTVAULT_SERVER", api.url)
        glass = str(await vault.pool.fetchval("select id from break_glass"))
        for name, role, arguments in calls(ids, scan, policy):
            monkeypatch.setenv("PORTVAULT_TOKEN", api.tokens[role])
            await run(name, [glass if word == "GLASS" else word for word in arguments])
        token = str(await vault.pool.fetchval("select id from token limit 1"))
    for variable, value in (
        ("HOME", str(config.home)),
        ("DATABASE", config.database),
        ("REGIONS", "uk,sg"),
    ):
        monkeypatch.setenv(f"PORTVAULT_{variable}", value)
    for name, arguments in LOCAL:
        await run(name, [token if word == "TOKEN" else word for word in arguments])
    assert wide == {}
    assert {name for name, out in told.items() if not out} <= SILENT, refused
    for name, identity in (("order list", ids["order"]), ("hold list", ids["hold"])):
        assert identity in told[name].split(), name
    # By its document, its order and its customer.
    assert told["retention explain"].count("held by") == 1
    times = {time for out in told.values() for time in TIME.findall(out)}
    assert times
    assert not {time for time in times if not re.fullmatch(r"[\d-]+T[\d:]{8}Z[.,;)]?", time)}


_ANY = dict.fromkeys(("order", "document", "gone", "hold", "instruction", "approval", "fax"), "x")
#: What is refused here, and says why elsewhere.
SILENT = {
    "order cancel",
    "retention apply",
    "approval approve",
    "approval decline",
    "approval withdraw",
}
