"""Fax to email: delivered by a real Postfix, and not by peers that are slow, cut or lie."""

import asyncio
import io
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pikepdf
import pytest
from aiosmtpd.handlers import Sink
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

from tests.fixtures_postfix import HostilePeer, Postfix, attachment, make_certificate
from tests.fixtures_server import serving
from tests.fixtures_telefax import CALLEE, CALLER, Faxes
from tests.retention_house import after
from vault.actions.fax_delivery import COPIES, describe_fax, expire_faxes, relay_faxes
from vault.actions.fax_intake import Incoming, receive_fax
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.domain.access import Principal, Role


@asynccontextmanager
async def relaying(
    config: Config, table: str, **settings: Any
) -> AsyncIterator[tuple[Vault, Faxes]]:
    """Serve a vault whose faxes go where this table says."""
    config.home.mkdir(exist_ok=True)
    (config.home / "faxes.toml").write_text(table)
    own = replace(config, fax_mail_from="fax@vault.test", fax_retry_seconds=0.001, **settings)
    async with open_vault(own, dsn=own.database) as vault, serving(vault) as api:
        yield vault, Faxes(api)


def table(
    port: int,
    *,
    address: str = "inbox@acme.test",
    ca: str = "",
    tls: str = "required",
    more: str = "",
) -> str:
    """Return a table with one route and its domain."""
    text = f'[[routes]]\nnumber = "+442079460*"\naddress = "{address}"\n{more}\n'
    text += f'[[domains]]\ndomain = "acme.test"\nhost = "127.0.0.1:{port}"\ntls = "{tls}"\n'
    return text + (f'ca = "{ca}"\n' if ca else "")


async def state_of(faxes: Faxes, fax: str) -> tuple[str, str | None]:
    """Return a fax's state and result."""
    _, body = await faxes.show(fax)
    return body["state"], body["result"]


async def test_a_fax_reaches_a_mailbox_as_pdf(config: Config, postfix: Postfix, fax: bytes) -> None:
    """Through TLS with a certificate that verifies, with every page; then the fax is shredded."""
    async with relaying(config, table(postfix.port, ca=postfix.ca)) as (vault, faxes):
        identity = await faxes.taken(fax)
        assert (await faxes.show(identity))[1]["channel"] == "mail"
        assert await relay_faxes(vault, "uk") == 1
        state, result = await state_of(faxes, identity)
        assert (state, (result or "")[:4]) == ("delivered", "250 ")
        (mail,) = await postfix.wait_for_mail()
        assert mail["Subject"] == "Fax, 2 pages"
        assert mail["Message-ID"] == f"<{identity}@vault.test>"
        assert CALLER in str(mail)
        with pikepdf.open(io.BytesIO(attachment(mail))) as pdf:
            assert len(pdf.pages) == 2
        assert await relay_faxes(vault, "uk") == 0
        assert (await faxes.content(identity))[0] == 410
    assert "TLS connection established from localhost" in postfix.log()


async def test_what_is_mailed_does_nothing(config: Config, authorisation: bytes) -> None:
    """A PDF with links that lead out comes to the mailbox as its pages alone."""
    out = io.BytesIO()
    with pikepdf.open(io.BytesIO(authorisation)) as pdf:
        link = pikepdf.Dictionary(S=pikepdf.Name.URI, URI="https://collect.example/")
        pdf.Root.OpenAction = link
        note = pikepdf.Dictionary(Subtype=pikepdf.Name.Link, Rect=[0, 0, 9, 9], A=link)
        pdf.pages[0].obj.Annots = pikepdf.Array([pdf.make_indirect(note)])
        pdf.save(out)
    async with (
        HostilePeer({}) as peer,
        relaying(config, table(peer.port, tls="opportunistic")) as (vault, faxes),
    ):
        identity = await faxes.taken(out.getvalue())
        assert await relay_faxes(vault, "uk") == 1
        assert (await state_of(faxes, identity))[0] == "delivered"
        sent = attachment(message_from_bytes(peer.data, policy=default))
        with pikepdf.open(io.BytesIO(sent)) as pdf:
            assert len(pdf.pages) == 1
            assert set(pdf.Root.keys()) == {"/Type", "/Pages"}
            assert "/Annots" not in pdf.pages[0]
        assert b"collect.example" not in sent


async def test_what_is_relayed_shares_the_account_of_memory(config: Config, fax: bytes) -> None:
    """A fax that finds no room for its copies waits, is told so, and goes when there is room."""
    async with (
        HostilePeer({}) as peer,
        relaying(
            config,
            table(peer.port, tls="opportunistic"),
            intake_memory_bytes_max=len(fax) * COPIES,
        ) as (vault, faxes),
    ):
        identity = await faxes.taken(fax)
        with vault.memory.share(1):
            assert await relay_faxes(vault, "uk") == 1
        assert (await state_of(faxes, identity))[0] == "queued"
        await asyncio.sleep(0.05)
        assert await relay_faxes(vault, "uk") == 1
        assert (await state_of(faxes, identity))[0] == "delivered"
        assert vault.memory.taken_bytes == 0


async def test_what_the_next_hop_refuses_fails_and_what_it_defers_is_tried_again(
    config: Config, postfix: Postfix, fax: bytes
) -> None:
    """A 5xx ends the fax, a 4xx has it wait; what was said stands in the receipt, masked."""
    refused = table(postfix.port, ca=postfix.ca, address="gone@acme.test")
    async with relaying(config, refused) as (vault, faxes):
        identity = await faxes.taken(fax)
        await relay_faxes(vault, "uk")
        state, result = await state_of(faxes, identity)
        assert state == "failed"
        assert "550" in (result or "")
        assert CALLEE not in (result or "")
    deferred = table(postfix.port, ca=postfix.ca, address="later@acme.test")
    async with relaying(config, deferred) as (vault, faxes):
        identity = await faxes.taken(fax)
        for _ in range(2):
            await relay_faxes(vault, "uk")
            assert (await state_of(faxes, identity))[0] == "queued"
            await asyncio.sleep(0.05)
        assert (await faxes.show(identity))[1]["attempts"] == 2
    async with relaying(config, table(postfix.port, ca=postfix.ca)) as (vault, faxes):
        await relay_faxes(vault, "uk")
        assert (await state_of(faxes, identity))[0] == "delivered"


async def test_without_tls_that_verifies_nothing_is_sent(
    config: Config, postfix: Postfix, fax: bytes
) -> None:
    """A certificate that does not verify, or no TLS at all, keeps the fax here, unless allowed."""
    async with relaying(config, table(postfix.port)) as (vault, faxes):
        identity = await faxes.taken(fax)
        await relay_faxes(vault, "uk")
        assert (await state_of(faxes, identity))[0] == "queued"
    async with HostilePeer({}) as peer:
        async with relaying(config, table(peer.port)) as (vault, _):
            await relay_faxes(vault, "uk")
        assert "MAIL" not in peer.heard
        allowed = table(peer.port, tls="opportunistic")
        async with relaying(config, allowed) as (vault, faxes):
            await relay_faxes(vault, "uk")
            assert (await state_of(faxes, identity))[0] == "delivered"
        assert b"Content-Type: application/pdf" in peer.data


@pytest.mark.parametrize("offered", [True, False])
async def test_a_report_of_delivery_is_asked_for(config: Config, fax: bytes, offered: bool) -> None:
    """Where the next hop knows RFC 3461, with the fax's id and without its content; else not."""
    greeting = b"250-peer\r\n" + (b"250-DSN\r\n" if offered else b"") + b"250 8BITMIME\r\n"
    async with (
        HostilePeer({"EHLO": greeting}) as peer,
        relaying(config, table(peer.port, tls="opportunistic")) as (vault, faxes),
    ):
        identity = await faxes.taken(fax)
        await relay_faxes(vault, "uk")
        assert (await state_of(faxes, identity))[0] == "delivered"
    (sender,) = [line for line in peer.lines if line.startswith("MAIL")]
    (recipient,) = [line for line in peer.lines if line.startswith("RCPT")]
    asked = {"RET=HDRS", f"ENVID={identity}"} <= set(sender.split())
    assert (asked, "NOTIFY=SUCCESS,FAILURE" in recipient) == (offered, offered)


HOSTILE: tuple[tuple[str, dict[str, bytes | float | None], str], ...] = (
    ("is silent", {"greeting": 5.0}, "queued"),
    ("is slow to take it", {"dot": 5.0}, "queued"),
    ("cuts at once", {"greeting": None}, "queued"),
    ("cuts before its answer", {"dot": None}, "queued"),
    ("cuts in the data", {"DATA": None}, "queued"),
    ("talks nonsense", {"greeting": b"\xff\xfe\x00hello\r\n"}, "queued"),
    ("never ends a line", {"greeting": b"2" * 100_000}, "queued"),
    ("answers the mail with nonsense", {"dot": b"maybe\r\n"}, "queued"),
    ("says yes to the wrong question", {"DATA": b"250 no need\r\n"}, "queued"),
    ("is full", {"dot": b"452 disk full\r\n"}, "queued"),
    ("refuses the recipient", {"RCPT": b"550 no\r\n"}, "failed"),
    ("refuses the content", {"dot": b"554 no faxes\r\n"}, "failed"),
    ("is not ready", {"greeting": b"421 later\r\n"}, "queued"),
    ("refuses every session", {"greeting": b"554 not from there\r\n"}, "queued"),
    ("wants a sign-in first", {"MAIL": b"530 sign in\r\n"}, "queued"),
    ("takes it and then is silent", {"QUIT": 5.0}, "delivered"),
    ("takes it and then cuts", {"QUIT": None}, "delivered"),
)


async def test_a_hostile_peer_neither_loses_nor_stops_a_fax(config: Config, fax: bytes) -> None:
    """Whatever a peer does but say 250 to the data, the fax is not called delivered."""
    script: dict[str, bytes | float | None] = {}
    async with HostilePeer(script) as peer:
        text = table(peer.port, tls="opportunistic")
        async with relaying(config, text, fax_mail_seconds_max=1.0) as (vault, faxes):
            for what, said, expected in HOSTILE:
                script.clear()
                script.update(said)
                identity = await faxes.taken(fax)
                await relay_faxes(vault, "uk")
                state, _ = await state_of(faxes, identity)
                assert state == expected, what
                if expected == "queued":
                    await faxes.act(identity, "fail", reason="done", final=True)


async def test_a_refused_sign_in_costs_no_fax(config: Config, tmp_path: Path, fax: bytes) -> None:
    """A wrong password has faxes wait, with the right one they go out."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)

    def signed_in(_: Any, __: Any, ___: Any, ____: str, given: LoginPassword) -> AuthResult:
        return AuthResult(success=given.password == b"right", handled=False)

    def factory() -> SMTP:
        offered: Any = {"authenticator": signed_in, "auth_exclude_mechanism": ["LOGIN"]}
        return SMTP(Sink(), tls_context=context, **offered)

    server = await asyncio.get_running_loop().create_server(factory, "127.0.0.1", 0)
    port, password = server.sockets[0].getsockname()[1], tmp_path / "password"
    rows = '[[routes]]\nnumber = "+442079460*"\naddress = "inbox@acme.test"\n'
    rows += f'[[domains]]\ndomain = "acme.test"\nca = "{certificate}"\n'
    settings = {
        "fax_smtp": f"127.0.0.1:{port}",
        "fax_smtp_user": "vault",
        "fax_smtp_password_file": str(password),
    }
    async with server, relaying(config, rows, **settings) as (vault, faxes):
        identity = await faxes.taken(fax)
        for said, state, answer in (("wrong", "queued", "535"), ("right", "delivered", "250")):
            password.touch(0o600)
            password.write_text(said)
            await relay_faxes(vault, "uk")
            found, result = await state_of(faxes, identity)
            assert (found, (result or "")[:3]) == (state, answer)
            await asyncio.sleep(0.05)


async def test_the_password_goes_to_the_hop_that_it_is_for(
    config: Config, tmp_path: Path, fax: bytes
) -> None:
    """A domain's own host does not get the password of `fax_smtp`, whatever it offers."""
    (tmp_path / "password").touch(0o600)
    (tmp_path / "password").write_text("secret")
    async with HostilePeer({"EHLO": b"250-peer\r\n250 AUTH PLAIN LOGIN\r\n"}) as peer:
        text = table(peer.port, tls="opportunistic")
        settings = {
            "fax_smtp": "127.0.0.1:1",
            "fax_smtp_user": "vault",
            "fax_smtp_password_file": str(tmp_path / "password"),
        }
        async with relaying(config, text, **settings) as (vault, faxes):
            identity = await faxes.taken(fax)
            await relay_faxes(vault, "uk")
            assert (await state_of(faxes, identity))[0] == "delivered"
        assert "AUTH" not in peer.heard


async def test_a_crash_between_the_answer_and_its_record_sends_again(
    config: Config, fax: bytes
) -> None:
    """The claim runs out and the mailbox gets the same Message-ID twice; the fax ends delivered."""

    class Died(BaseException):
        """The process, in the moment after the next hop has said 250."""

    async with HostilePeer({}) as peer:
        text = table(peer.port, tls="opportunistic")
        async with relaying(config, text, fax_attempt_seconds_max=60.0) as (vault, faxes):
            identity = await faxes.taken(fax)
            sent = list[bytes]()

            class Dying:
                async def send(self, *arguments: Any) -> str:
                    await vault.mailer.send(*arguments)
                    sent.append(peer.data)
                    raise Died

            dying = replace(vault, mailer=Dying())
            with pytest.raises(BaseExceptionGroup) as died:
                await relay_faxes(dying, "uk")
            assert died.group_contains(Died)
            assert (await state_of(faxes, identity))[0] == "delivering"
            assert await relay_faxes(vault, "uk") == 0, "still claimed"
            later = replace(vault, clock=lambda: vault.clock() + timedelta(seconds=61))
            assert await relay_faxes(later, "uk") == 1
            assert (await state_of(faxes, identity))[0] == "delivered"
            name = f"Message-ID: <{identity}@vault.test>\r\n".encode()
            assert [name in data for data in (*sent, peer.data)] == [True, True]


async def test_an_odd_error_in_one_relay_stops_no_other(config: Config, fax: bytes) -> None:
    """Of two faxes at once the one that goes wrong in an unforeseen way waits, the other goes."""
    async with (
        HostilePeer({}) as peer,
        relaying(config, table(peer.port, tls="opportunistic")) as (vault, faxes),
    ):
        identities = [await faxes.taken(fax) for _ in range(2)]
        sandbox: Any = vault.sandbox
        convert, odd = sandbox.convert, [RuntimeError("odd")]

        async def fail_once(*args: Any, **options: Any) -> bytes:
            if odd:
                raise odd.pop()
            pdf: bytes = await convert(*args, **options)
            return pdf

        sandbox.convert = fail_once
        assert await relay_faxes(vault, "uk") == 2
        states = [(await state_of(faxes, identity))[0] for identity in identities]
        assert sorted(states) == ["delivered", "delivering"]


async def test_a_fax_is_not_relayed_out_of_its_region_without_a_basis(
    config: Config, fax: bytes
) -> None:
    """For Hong Kong no transfer is documented: a deployment elsewhere is refused, on record."""
    there = Principal("gateway", Role.FAX_GATEWAY, frozenset({"hk"}))

    async def body() -> AsyncIterator[bytes]:
        yield fax

    async with HostilePeer({}) as peer:
        routes = table(peer.port, tls="opportunistic").replace("+442079460*", "+85221234567")
        two = replace(config, regions=("uk", "hk"))
        async with relaying(two, routes, located="uk") as (vault, _):
            incoming = Incoming(body(), "inbound", None, "+85221234567")
            identity = (await receive_fax(vault, there, incoming)).id
            assert await relay_faxes(vault, "hk") == 1
            waiting = (await describe_fax(vault, there, identity)).fax
            assert (waiting.state, waiting.result) == ("queued", "ResidencyError")
            records = await vault.pool.fetch(
                "select decision, reason, region_to from access_record"
                " where document = $1 and action = 'fax.read'",
                identity,
            )
        assert [tuple(record) for record in records] == [("deny", "no-transfer-basis", "uk")]
        assert "DATA" not in peer.heard
        async with relaying(two, routes, located="hk") as (vault, _):
            assert await relay_faxes(vault, "hk") == 1
            assert (await describe_fax(vault, there, identity)).fax.state == "delivered"


async def test_so_many_faxes_are_relayed_at_once(config: Config, fax: bytes) -> None:
    """A round takes as many as the limit says, and the next round takes what is over."""
    async with HostilePeer({}) as peer:
        own = table(peer.port, tls="opportunistic")
        async with relaying(config, own, fax_relays_max=2) as (vault, faxes):
            for _ in range(3):
                await faxes.taken(fax)
            assert [await relay_faxes(vault, "uk") for _ in range(3)] == [2, 1, 0]


async def test_two_relays_at_once_send_once(config: Config, fax: bytes) -> None:
    """A fax that one worker has claimed is not sent by another."""
    async with HostilePeer({}) as peer:
        async with relaying(config, table(peer.port, tls="opportunistic")) as (vault, faxes):
            await faxes.taken(fax)
            counts = await asyncio.gather(*(relay_faxes(vault, "uk") for _ in range(5)))
        assert sum(counts) == 1
        assert peer.heard.count("DATA") == 1


async def test_a_recipient_with_a_certificate_gets_s_mime(
    config: Config, tmp_path: Path, fax: bytes
) -> None:
    """Numbers and pages are readable with the recipient's key alone, by OpenSSL."""
    directory = tmp_path / "recipient"
    directory.mkdir()
    certificate, key = make_certificate(directory, common_name="inbox@acme.test")
    async with HostilePeer({}) as peer:
        text = table(peer.port, tls="opportunistic", more=f'certificate = "{certificate}"')
        async with relaying(config, text) as (vault, faxes):
            identity = await faxes.taken(fax)
            await relay_faxes(vault, "uk")
            assert (await state_of(faxes, identity))[0] == "delivered"
        mail = peer.data.removesuffix(b".\r\n")
    assert b"application/x-pkcs7-mime" in mail or b"application/pkcs7-mime" in mail
    assert CALLER.encode() not in mail
    opened = await asyncio.to_thread(
        subprocess.run,
        ["openssl", "smime", "-decrypt", "-recip", str(certificate), "-inkey", str(key)],
        input=mail,
        capture_output=True,
        check=True,
    )
    assert CALLER.encode() in opened.stdout
    assert b"application/pdf" in opened.stdout


async def test_a_fax_that_goes_by_mail_expires_all_the_same(config: Config, fax: bytes) -> None:
    """A next hop that is away for a day costs the fax, and the receipt says so."""
    async with relaying(config, table(1)) as (vault, faxes):
        identity = await faxes.taken(fax)
        await relay_faxes(vault, "uk")
        later = after(vault, timedelta(hours=25))
        assert await expire_faxes(later, "uk") == 1
        assert (await state_of(faxes, identity))[0] == "expired"
