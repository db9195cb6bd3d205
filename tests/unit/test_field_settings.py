"""What other people's servers and settings answer in the field, and what the vault makes of it."""

import argparse
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from keys.custodians.transit import TransitServer
from keys.errors import CustodianUnavailableError
from vault.adapters.objects import open_store
from vault.adapters.oidc import OidcProvider
from vault.adapters.s3_requests import Bucket
from vault.commands import faxes as hylafax
from vault.commands.faxes import _named, _query
from vault.commands.parser import make_parser
from vault.context import ObjectStore
from vault.domain.people import parse_mapping, person_of
from vault.errors import ForbiddenError, InvalidRequestError, ObjectStoreUnavailableError

MAPPING = parse_mapping("groups", ["desk=porting"], ["desk=uk"], [])
CASES = Path(__file__).parents[1] / "cases"
CLAIMS = {"iss": "https://id.test", "sub": "u-1"}


@pytest.mark.parametrize("groups", ["desk", ["desk"], ["other", "desk", 5]])
def test_one_group_may_be_a_text(groups: Any) -> None:
    """What a provider makes of a single group means the same as a list of it."""
    person = person_of({**CLAIMS, "groups": groups}, MAPPING)
    assert (person.principal.role, person.principal.regions) == ("porting", frozenset({"uk"}))


def test_what_providers_send_is_understood() -> None:
    """One group as a text is a role; groups that were left out for their size are named."""
    person = person_of({**CLAIMS, **claims("string-group")}, MAPPING)
    assert person.principal.role == "porting"
    with pytest.raises(ForbiddenError, match="left your groups out"):
        person_of({**CLAIMS, **claims("overage")}, MAPPING)


def claims(case: str) -> dict[str, Any]:
    """Return the claims of an ID token from the field."""
    found: dict[str, Any] = json.loads((CASES / f"id-token-claims-{case}.json").read_bytes())
    return found


@pytest.mark.parametrize(
    "more, said",
    [
        ({"_claim_names": {"groups": "src1"}, "_claim_sources": {}}, "left your groups out"),
        ({"hasgroups": True}, "left your groups out"),
        ({"_claim_names": {"address": "src1"}}, "no role here"),
        ({"groups": "desks"}, "no role here"),
        ({"groups": 5}, "no role here"),
    ],
)
def test_groups_that_were_left_out_are_said_to_be(more: dict[str, Any], said: str) -> None:
    """Whoever is in too many groups learns what to ask for, and not that they have no role."""
    with pytest.raises(ForbiddenError, match=said):
        person_of({**CLAIMS, **more}, MAPPING)


@pytest.mark.parametrize("secret", ["p+s%2F:x", "plain-secret", "a b&c"])
@pytest.mark.parametrize("methods", [None, ["client_secret_basic"], ["client_secret_post"]])
def test_a_client_secret_arrives_as_it_is(secret: str, methods: list[str] | None) -> None:
    """A provider that reads RFC 6749, 2.3.1, as it stands gets back what was configured."""
    provider = OidcProvider("https://id.test", "vault:1", secret, "openid")
    if methods is not None:
        provider._metadata = {"token_endpoint_auth_methods_supported": methods}
    _, headers, body = provider._authentication().prepare("POST", "https://id.test/t", {}, "a=b")
    if "Authorization" in headers:
        text = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
        found = [unquote_plus(part) for part in text.split(":")]
    else:
        fields = parse_qs(body)
        found = [fields["client_id"][0], fields["client_secret"][0]]
        assert methods == ["client_secret_post"]
    assert found == ["vault:1", secret]


def received(callids: list[str], **more: Any) -> dict[str, str]:
    said = {"to": None, "to_callid": 3, "region": None, "callids_without_plus": False, **more}
    facts = {"commid": "000000001", "devid": "ttyIAX0", "error_msg": ""}
    return _query(argparse.Namespace(callid=callids, **facts, **said))


CALLIDS = ["442079460999", "Alice", "442079460123"]


def test_a_line_that_gives_no_plus_sign_is_told_which_option_reads_it() -> None:
    """Nobody guesses a country; the refusal names what was given and what to say."""
    with pytest.raises(InvalidRequestError, match="CALLID 3 is no number.*--callids-without-plus"):
        received(CALLIDS)
    with pytest.raises(InvalidRequestError, match="HylaFAX gave 2 CALLIDs, and --to-callid says 3"):
        received(CALLIDS[:2])
    with pytest.raises(InvalidRequestError, match="CALLID 3"):
        received([*CALLIDS[:2], "02079460123"], callids_without_plus=True)


def test_a_line_that_gives_no_plus_sign_is_read_where_it_was_said() -> None:
    """With the option both numbers have their country codes; a withheld one stays none."""
    found = received(CALLIDS, callids_without_plus=True)
    assert (found["from"], found["to"]) == ("+442079460999", "+442079460123")
    found = received(["anonymous", "", "+442079460123"])
    assert (found["from"], found["to"]) == ("anonymous", "+442079460123")


async def test_a_fax_whose_number_nobody_understands_waits_with_a_note(tmp_path: Path) -> None:
    """The note says all but the number, no name among it, and `fax drain --to` says that."""
    path = tmp_path / "fax00001.tif"
    path.write_bytes(b"II*")
    args = ("fax", "received", "--to-callid", "3", "--", str(path), "ttyIAX0", "000000001", "")
    with pytest.raises(InvalidRequestError, match="--callids-without-plus"):
        await hylafax.received(make_parser().parse_args([*args, *CALLIDS]))
    text = (tmp_path / "fax00001.tif.portvault").read_text()
    query = json.loads(text)["query"]
    assert ("to" in query, "Alice" in text, path.exists()) == (False, False, True)
    with pytest.raises(InvalidRequestError, match="--to NUMBER"):
        _named(query, None)
    assert _named(query, "+442079460123") == {**query, "to": "+442079460123"}


def test_a_bucket_of_another_s3_region_is_named() -> None:
    """What the server says of its region becomes the setting to change."""
    place = Bucket(
        "s3.test", "scans", secure=True, region="us-east-1", access_key="a", secret_key="b"
    )
    said = str(place.refusal("AuthorizationHeaderMalformed", 400, region="eu-central-1"))
    assert "PORTVAULT_S3_REGION=eu-central-1" in said
    assert "us-east-1" in said
    assert "S3_REGION=" not in str(place.refusal("SlowDown", 503, region="us-east-1"))


async def test_a_bucket_of_another_s3_region_is_named_by_every_call() -> None:
    """Whichever way to the server is taken, its word of the region is not lost."""

    async def refuse(request: web.Request) -> web.Response:
        body = (
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-central-1</Region></Error>"
        )
        return web.Response(status=400, text=body, content_type="application/xml")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    async with TestServer(app) as server:
        address = f"s3+http://127.0.0.1:{server.port}/scans"
        store = open_store(
            address, access_key="a", secret_key="b", region="us-east-1", timeout_seconds=10
        )
        try:
            for call in (store.check, partial(store.purge, "documents/a"), partial(listed, store)):
                with pytest.raises(ObjectStoreUnavailableError, match="S3_REGION=eu-central-1"):
                    await call()
        finally:
            await store.close()


async def listed(store: ObjectStore) -> None:
    """List what there is."""
    async for _ in store.list("documents/"):
        pass


@asynccontextmanager
async def serving(
    directory: Path, answer: Callable[[web.Request], Awaitable[web.Response]]
) -> AsyncIterator[tuple[TransitServer, str]]:
    """Serve an engine that answers so; give who calls it, and its address."""
    secret = directory / "token"
    secret.touch(mode=0o600)
    secret.write_text("token\n")
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(app) as server:
        place = f"http://127.0.0.1:{server.port}"
        engine = TransitServer(f"{place}/transit?token-file={secret}")
        try:
            yield engine, place
        finally:
            await engine.close()


@pytest.mark.parametrize(
    "status, body, said",
    [
        (503, json.dumps({"errors": ["Vault is sealed"]}), "is sealed: unseal it"),
        (503, "<html>no server is available</html>", "a load balancer may stand there"),
        (429, json.dumps({"errors": ["standby"]}), "it is a standby"),
        (473, "", "it is a standby"),
    ],
)
async def test_what_a_transit_engine_answers_is_told_apart(
    tmp_path: Path, status: int, body: str, said: str
) -> None:
    """Sealed, away behind a balancer and a standby want different things of an operator."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=status, text=body)

    async with serving(tmp_path, answer) as (engine, _):
        with pytest.raises(CustodianUnavailableError, match=said):
            await engine.call("GET", "keys/a")


async def test_a_standby_is_followed_to_the_active_server_and_no_further(tmp_path: Path) -> None:
    """The same path of another server is asked once, with the token; anything else is not."""
    asked = list[str]()

    async def active(request: web.Request) -> web.Response:
        asked.append(request.headers["X-Vault-Token"])
        return web.json_response({"data": {"name": "a"}})

    async with serving(tmp_path, active) as (_, place):
        told = f"{place}/v1/transit/keys/a"

        async def standby(request: web.Request) -> web.Response:
            return web.Response(status=307, headers={"Location": told})

        async with serving(tmp_path, standby) as (engine, _):
            assert await engine.call("GET", "keys/a") == {"name": "a"}
            for other in (f"{place}/v1/other", "http://vault.example/v1/transit/keys/a", "/v1/a"):
                told = other
                with pytest.raises(CustodianUnavailableError, match="standby"):
                    await engine.call("GET", "keys/a")
    assert asked == ["token"]
