"""The console in a real browser: what only a browser adds to a request, and a keyboard alone."""

import shutil
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright

from tests.fixtures_oidc import Place
from vault.context import Vault


@pytest.fixture
async def tab() -> AsyncIterator[Page]:
    """Give a page of the system's Chromium, with nothing in it but what is served."""
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=shutil.which("chromium"),
            # As root, which a container's tests run as, its own sandbox does not start; and the
            # shared memory of a container is small.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        yield await browser.new_page()
        await browser.close()


async def sign_in(tab: Page, place: Place, groups: str) -> None:
    """Sign in at the provider, by the keyboard alone."""
    await tab.goto(place.url + "/console")
    while not await tab.evaluate("document.activeElement.matches('a.button')"):
        await tab.keyboard.press("Tab")
    await tab.keyboard.press("Enter")
    await tab.locator("input[name=login]").focus()
    await tab.keyboard.type(groups)
    await tab.locator("input[name=password]").focus()
    await tab.keyboard.type("any")
    await tab.keyboard.press("Enter")
    consent = tab.get_by_role("button", name="Continue")
    await consent.focus()
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(place.url + "/console")


async def test_a_person_signs_in_and_out_by_the_keyboard(
    signing_vault: Vault, identity_provider: Place, tab: Page
) -> None:
    """The sign-in, the page and the log-out work as a browser sends them; no script runs."""
    said = list[ConsoleMessage]()
    await sign_in(tab, identity_provider, "desk+uk")

    def note(message: ConsoleMessage) -> None:
        said.append(message)

    tab.on("console", note)
    assert "You are signed in" in await tab.inner_text("h1")
    cookie = next(
        found for found in await tab.context.cookies() if found["name"] == "portvault-session"
    )
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Lax")
    assert await tab.evaluate("document.cookie") == ""
    await tab.get_by_role("button", name="Sign out").focus()
    await tab.keyboard.press("Enter")
    await tab.wait_for_url(identity_provider.issuer + "/**")
    assert await signing_vault.pool.fetchval("select count(*) from session") == 0
    names = {found["name"] for found in await tab.context.cookies()}
    assert "portvault-session" not in names
    assert [one.text for one in said if one.location["url"].startswith(identity_provider.url)] == []


async def test_another_sites_form_signs_nobody_out(
    signing_vault: Vault, identity_provider: Place, tab: Page
) -> None:
    """A page of another site that posts the log-out, with the right token even, is refused."""
    await sign_in(tab, identity_provider, "desk+uk")
    csrf = await tab.locator("input[name=csrf]").get_attribute("value")
    await tab.goto(identity_provider.issuer.replace("127.0.0.1", "localhost") + "/nowhere")
    await tab.evaluate(
        """([url, csrf]) => {
            const form = document.createElement('form');
            form.method = 'post'; form.action = url;
            const field = document.createElement('input');
            field.name = 'csrf'; field.value = csrf;
            form.append(field); document.body.append(form); form.submit();
        }""",
        [identity_provider.url + "/console/sign-out", csrf],
    )
    await tab.wait_for_url(identity_provider.url + "/**")
    assert await signing_vault.pool.fetchval("select count(*) from session") == 1
