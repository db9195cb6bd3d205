"""People sign in at a real identity provider, and what an attacker between them can do."""

import asyncio
from dataclasses import replace
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.fixtures_oidc import Browser, Place
from vault.context import Vault

SESSIONS = "select count(*) from session"


async def test_somebody_signs_in_sees_who_they_are_and_signs_out(
    browser: Browser, signing_vault: Vault
) -> None:
    """The groups at the provider are a role and regions here, until the log-out ends both."""
    shown = await browser.go("/console")
    assert "Sign in" in shown.text
    shown = await browser.sign_in("desk+uk+london")
    assert (shown.status, "You are signed in, Robin desk" in shown.text) == (200, True)
    for word in ("porting", "UK", "person:", "Robin desk+uk+london, for compliance"):
        assert word in shown.text
    secret = browser.cookie()
    assert secret
    kept = repr(await signing_vault.pool.fetch("select * from session"))
    assert secret not in kept
    left = await browser.fill_in(shown)
    assert left.url.startswith(browser.place.issuer)
    assert browser.cookie() is None
    assert await signing_vault.pool.fetchval(SESSIONS) == 0
    records = await signing_vault.pool.fetch(
        "select principal, role, action from access_record where phase = 'intent' order by at"
    )
    assert [row["action"] for row in records] == ["session.begin", "session.end"]
    assert {row["role"] for row in records} == {"porting"}
    assert "desk" not in records[0]["principal"]
    # The name stands beside the log, and stays when the session has ended.
    names = "select name from principal_name where principal = $1"
    assert (
        await signing_vault.pool.fetchval(names, records[0]["principal"]) == "Robin desk+uk+london"
    )


@pytest.mark.parametrize(
    "groups, says",
    [("visitors+uk", "no role"), ("desk+audit+uk", "several roles"), ("desk", "no region")],
)
async def test_who_has_no_place_here_is_refused_and_recorded(
    browser: Browser, signing_vault: Vault, groups: str, says: str
) -> None:
    """An account without exactly one role and a region gets a page that says so, and no session."""
    shown = await browser.sign_in(groups)
    assert (shown.status, says in shown.text) == (403, True)
    assert browser.cookie() is None
    row = await signing_vault.pool.fetchrow("select decision, reason from access_record")
    assert row is not None
    assert tuple(row) == ("deny", "role-may-not")


async def test_the_cookie_is_for_the_console_alone(browser: Browser) -> None:
    """No script reads it, no other site's form carries it, and the API does not know it."""
    await browser.sign_in("desk+uk")
    async with browser.session.get(browser.place.url + "/v1/orders") as response:
        assert response.status == 401
        assert "Set-Cookie" not in response.headers
    (cookie,) = [c for c in browser.session.cookie_jar if c.key == "portvault-session"]
    assert cookie["httponly"]
    assert cookie["samesite"] == "Lax"


async def test_an_answer_is_taken_once(browser: Browser) -> None:
    """The same code and state, sent again, sign nobody in."""
    browser.stop_at = browser.place.url + "/console/callback"
    answer = await browser.sign_in("desk+uk")
    browser.stop_at = None
    assert (await browser.go(answer.url)).status == 200
    again = await browser.go(answer.url)
    assert (again.status, "begin again" in again.text) == (401, True)


async def test_a_code_is_good_once_at_the_provider_too(browser: Browser) -> None:
    """A stolen code under a state of one's own does not verify: it belongs to another verifier."""
    browser.stop_at = browser.place.url + "/console/callback"
    code = parse_qs(urlsplit((await browser.sign_in("desk+uk")).url).query)["code"][0]
    thief = Browser(browser.place)
    thief.stop_at = browser.place.issuer
    begun = await thief.go("/console/sign-in")
    state = parse_qs(urlsplit(begun.url).query)["state"][0]
    thief.stop_at = None
    taken = await thief.go(f"/console/callback?code={code}&state={state}")
    assert (taken.status, thief.cookie()) == (401, None)
    await thief.session.close()


async def test_an_answer_belongs_to_the_browser_that_began(
    browser: Browser, signing_vault: Vault
) -> None:
    """Nobody is signed in as somebody else by a link: the answer needs the cookie it began with."""
    browser.stop_at = browser.place.url + "/console/callback"
    answer = await browser.sign_in("desk+uk")
    victim = Browser(browser.place)
    shown = await victim.go(answer.url)
    assert (shown.status, victim.cookie()) == (401, None)
    assert await signing_vault.pool.fetchval(SESSIONS) == 0
    await victim.session.close()


@pytest.mark.parametrize(
    "error, said", [("invalid_scope", "invalid_scope"), ("<b>x", "an error without a known code")]
)
async def test_what_the_provider_refuses_is_named(
    browser: Browser, caplog: pytest.LogCaptureFixture, error: str, said: str
) -> None:
    """Page and log name the error's code to who began; nothing else of the address is repeated."""
    browser.stop_at = browser.place.issuer
    begun = await browser.go("/console/sign-in")
    (state,) = parse_qs(urlsplit(begun.url).query)["state"]
    query = urlencode(
        {"error": error, "error_description": "AADSTS1: call +442079460123", "state": state}
    )
    shown = await browser.go(f"/console/callback?{query}")
    assert shown.status == 401
    assert said in shown.text
    assert said in caplog.text
    assert "call +44" not in shown.text + caplog.text
    stranger = Browser(browser.place)
    other = await stranger.go(f"/console/callback?{query}")
    assert (other.status, said in other.text) == (401, False)
    await stranger.session.close()


async def test_a_planted_cookie_becomes_no_session(browser: Browser) -> None:
    """Whatever a browser holds before, the sign-in gives it a secret of its own."""
    browser.session.cookie_jar.update_cookies({"portvault-session": "planted"})
    assert "Sign in" in (await browser.go("/console")).text
    await browser.sign_in("desk+uk")
    first = browser.cookie()
    assert first != "planted"
    await browser.sign_in("desk+uk")
    assert browser.cookie() != first


@pytest.mark.parametrize(
    "headers, fields",
    [
        ({}, {"csrf": "x"}),
        ({"Sec-Fetch-Site": "cross-site"}, {}),
        ({"Origin": "https://elsewhere.example"}, {}),
    ],
)
async def test_another_sites_form_does_nothing(
    browser: Browser, signing_vault: Vault, headers: dict[str, str], fields: dict[str, str]
) -> None:
    """A form without this session's token, or from another origin, is refused."""
    shown = await browser.sign_in("desk+uk")
    token = shown.text.partition('name="csrf" value="')[2].partition('"')[0]
    answer = await browser.go(
        "/console/sign-out", method="POST", data={"csrf": token, **fields}, headers=headers
    )
    assert answer.status == 403
    assert await signing_vault.pool.fetchval(SESSIONS) == 1


async def test_a_log_out_at_the_provider_ends_the_session_here(
    browser: Browser, signing_vault: Vault
) -> None:
    """The provider tells the vault (back-channel), and who was signed in is not any more."""
    await browser.sign_in("desk+uk")
    answer = await browser.go(browser.place.issuer + "/session/end")
    await browser.fill_in(answer, logout="yes")
    async with asyncio.timeout(10):
        while await signing_vault.pool.fetchval(SESSIONS):
            await asyncio.sleep(0.05)
    assert "Sign in" in (await browser.go("/console")).text


async def test_a_made_up_log_out_is_refused(browser: Browser, signing_vault: Vault) -> None:
    """Only the provider signs people out."""
    await browser.sign_in("desk+uk")
    path = "/console/back-channel-logout"
    for fields in ({"logout_token": "e30.e30."}, {}):
        answer = await browser.go(path, method="POST", data=fields)
        assert answer.status == 422
    assert await signing_vault.pool.fetchval(SESSIONS) == 1


async def test_a_session_ends_by_itself(browser: Browser, signing_vault: Vault) -> None:
    """After its hours a session is nothing, whatever the browser still sends."""
    await browser.sign_in("desk+uk")
    await signing_vault.pool.execute("update session set expires_at = now()")
    assert "Sign in" in (await browser.go("/console")).text


async def test_pages_run_no_script_and_stand_in_no_frame(browser: Browser) -> None:
    """The policy of each page allows its own style and forms, and nothing else."""
    shown = await browser.sign_in("desk+uk")
    policy = shown.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "<script" not in shown.text


async def test_a_provider_that_is_away_is_said_so(
    signing_vault: Vault, identity_provider: Place, browser: Browser
) -> None:
    """Without the provider nobody signs in, and the page says so; who is signed in still ends."""
    before = await browser.sign_in("desk+uk")
    gone = Browser(replace(identity_provider, issuer="http://127.0.0.1:1"))
    provider = signing_vault.people.provider if signing_vault.people else None
    object.__setattr__(provider, "issuer", "http://127.0.0.1:1")
    object.__setattr__(provider, "_keys", None)
    shown = await gone.go("/console/sign-in")
    assert (shown.status, "identity provider" in shown.text) == (503, True)
    await gone.session.close()
    left = await browser.fill_in(before)
    assert (left.url, "Sign in" in left.text) == (identity_provider.url + "/console", True)
    assert browser.cookie() is None
    assert await signing_vault.pool.fetchval(SESSIONS) == 0
