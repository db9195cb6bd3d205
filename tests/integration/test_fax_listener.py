"""Email to fax: from a real Postfix and by hand; a 250 is custody, and nothing else is."""

import asyncio
import smtplib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path
from typing import Any

import aiosmtplib
import asyncpg
import pytest

from tests.fixtures_postfix import Postfix, make_certificate
from tests.fixtures_server import Api, serving
from tests.fixtures_telefax import Faxes, altered_pdf, tiff
from tests.hostile_mails import hostile_mails
from vault.app import open_vault
from vault.config.settings import Config
from vault.context import Vault
from vault.errors import ObjectStoreUnavailableError
from vault.mail.listener import COPIES, LINES_BYTES, listening
from vault.web.listening import open_account

NUMBER = "+442079460123"
ADDRESS = f"{NUMBER}@fax.test"
CASES = Path(__file__).parents[1] / "cases"
PLAIN_PDF = (CASES / "s-ok.pdf").read_bytes()


def mail(
    *attachments: bytes, name: str | None = "<one@acme.test>", subtype: str = "pdf"
) -> EmailMessage:
    """Return a mail with these attachments."""
    made = EmailMessage()
    made["From"], made["To"], made["Subject"] = "alice@acme.test", ADDRESS, "please fax"
    if name:
        made["Message-ID"] = name
    made.set_content("Please fax this.")
    for data in attachments:
        made.add_attachment(data, maintype="application", subtype=subtype, filename="a." + subtype)
    return made


@dataclass
class Listener:
    """A vault that listens, and its clients."""

    vault: Vault
    api: Api
    port: int

    @property
    def faxes(self) -> Faxes:
        """The calls of a gateway."""
        return Faxes(self.api)

    async def say(
        self,
        message: EmailMessage | bytes,
        *,
        to: str = ADDRESS,
        token: str | None = None,
        tls: bool = False,
    ) -> tuple[int, str]:
        """Send a mail and return the first code that is no success, or the last one."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=self.port, start_tls=tls, tls_context=context, timeout=20
        )
        content = message if isinstance(message, bytes) else message.as_bytes()
        try:
            async with client:
                if token is not None:
                    await client.login("gateway", token)
                _, said = await client.sendmail("alice@acme.test", [to], content)
                return 250, said
        except aiosmtplib.SMTPRecipientsRefused as error:
            return error.recipients[0].code, error.recipients[0].message
        except aiosmtplib.SMTPResponseException as error:
            return error.code, error.message

    async def count(self) -> int:
        """Return how many faxes there are."""
        count: int = await self.vault.pool.fetchval("select count(*) from fax")
        return count


@asynccontextmanager
async def listener(config: Config, port: int = 0, **settings: Any) -> AsyncIterator[Listener]:
    """Serve a vault that listens on loopback, where peers need no token unless told otherwise."""
    own: dict[str, Any] = {
        "fax_listen": f"127.0.0.1:{port}",
        "fax_listen_domains": ("fax.test",),
        "fax_listen_peers": ("127.0.0.0/8",),
        **settings,
    }
    changed = replace(config, **own)
    async with (
        open_vault(changed, dsn=changed.database) as vault,
        serving(vault) as api,
        listening(vault, open_account(changed)) as address,
    ):
        assert address is not None
        yield Listener(vault, api, int(address.rpartition(":")[2]))


async def test_a_mail_becomes_a_fax(config: Config, authorisation: bytes, fax: bytes) -> None:
    """Each attachment is an outbound fax in custody when the 250 comes, once for one Message-ID."""
    async with listener(config) as there:
        assert (await there.say(mail(authorisation)))[0] == 250
        _, page, _ = await there.api.call("GET", "/v1/faxes?direction=outbound", role="fax-gateway")
        (taken,) = page["data"]
        assert (taken["state"], taken["to_masked"], taken["from_masked"]) == (
            "received",
            "+442079460***",
            None,
        )
        _, content, response = await there.faxes.content(taken["id"])
        assert content == authorisation
        assert response.headers["Fax-To"] == NUMBER
        assert (await there.say(mail(authorisation)))[0] == 250
        assert await there.count() == 1, "sent again by a server that missed the answer"
        both = mail(authorisation, name="<two@acme.test>")
        both.add_attachment(fax, maintype="image", subtype="tiff", filename="b.tif")
        assert (await there.say(both, to=f"FAX={NUMBER}@fax.test"))[0] == 250
        assert await there.count() == 3


async def test_what_is_no_fax_is_refused_at_the_end_of_the_data(
    config: Config, authorisation: bytes, fax: bytes
) -> None:
    """Each refusal has its code, and leaves the mail with who sent it."""
    scripted, small = altered_pdf(authorisation, "attachment"), tiff({})
    size = len(scripted)
    async with listener(config, fax_bytes_max=size, fax_listen_attachments_max=2) as there:
        refused: dict[str, tuple[EmailMessage | bytes, int, str]] = {
            "no attachment": (mail(), 550, "5.6.0"),
            "another type": (mail(b"MZ" + bytes(100), subtype="octet-stream"), 550, "5.6.1"),
            "a script": (mail(scripted), 550, "5.6.0"),
            "a fax with a loop": (mail(tiff({})[:-8], subtype="tiff"), 550, "5.6.0"),
            "too large a fax": (mail(scripted + b"\n"), 552, "5.3.4"),
            "too many": (mail(*[small] * 3, subtype="tiff"), 550, "5.6.0"),
            "too large a mail": (mail(authorisation * 3), 552, ""),
            "nonsense": (b"\xff\x00nonsense", 550, "5.6.0"),
        }
        for what, (message, code, enhanced) in refused.items():
            found, said = await there.say(message)
            assert (found, enhanced in said) == (code, True), (what, said)
        for address in ("alice@fax.test", f"{NUMBER}@other.test", "+33123456789@fax.test"):
            assert (await there.say(mail(authorisation), to=address))[0] == 550
        assert (await there.say(mail(small, scripted, subtype="tiff")))[0] == 550
        assert await there.count() == 0, "and none of a mail of which one is refused"
        assert (await there.say(mail(small, small, subtype="tiff")))[0] == 250
        assert await there.count() == 2


async def test_hostile_mails_are_faxes_or_refused_for_good(config: Config) -> None:
    """None is a fault of ours, none is asked for again, and nothing of them stays in memory."""
    wrong, taken = [], 0
    async with listener(config) as there:
        for number, (what, (message, is_taken)) in enumerate(hostile_mails().items()):
            named = b"Message-ID: <%d@acme.test>\r\nMIME-Version: 1.0\r\n" % number + message
            code = await handed_over(there.port, named)
            taken += code == 250
            if code not in ({250} if is_taken else {500, 550, 552}):
                wrong.append((what, code))
        assert wrong == []
        assert there.vault.memory.taken_bytes == 0
        assert await there.count() == taken
        assert (await there.say(mail(PLAIN_PDF)))[0] == 250


@pytest.mark.parametrize("case", ["mail-smime", "mail-att00001", "mail-logo"])
async def test_what_mail_programs_add_costs_no_fax(config: Config, case: str) -> None:
    """A signed mail, Exchange's text around attachments, an inline logo: the fax is taken."""
    message = (CASES / f"{case}.eml").read_bytes()
    async with listener(config) as there:
        assert (await there.say(message))[0] == 250
        assert await there.count() == 1


@pytest.mark.parametrize("case", ["s-startxref+1", "s-startxref+9", "front-bom", "front-text"])
async def test_what_viewers_open_is_a_fax_by_mail_too(config: Config, case: str) -> None:
    """The rule is the same as over HTTP."""
    async with listener(config) as there:
        assert (await there.say(mail((CASES / f"{case}.pdf").read_bytes())))[0] == 250


@pytest.mark.parametrize("option", ["AUTH=<>", "AUTH=desk+40acme.test", "auth=<> SIZE=1000"])
async def test_an_identity_that_a_relay_adds_is_taken(config: Config, option: str) -> None:
    """RFC 4954, 5: `AUTH=` is no reason to refuse a mail, and is not believed."""
    async with listener(config) as there:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=there.port, start_tls=False)
        async with client:
            await client.ehlo()
            said = await client.execute_command(b"MAIL FROM:<a@b.test> " + option.encode())
            assert said.code == 250


async def test_a_number_is_routed_by_its_country_code(config: Config) -> None:
    """New area codes, territories and neighbours who share the code are taken as over HTTP."""
    async with listener(replace(config, regions=("us", "uk"))) as there:
        for area in ("621", "924", "787", "416", "876"):
            said = await there.say(mail(PLAIN_PDF), to=f"+1{area}5550123@fax.test")
            assert said[0] == 250, said
        said = await there.say(mail(PLAIN_PDF), to="+33142685300@fax.test")
        assert said[0] == 550, said
    async with listener(replace(config, regions=("uk",))) as there:
        for number in ("+16475550123", "+33142685300"):
            assert (await there.say(mail(PLAIN_PDF), to=f"{number}@fax.test"))[0] == 250
        assert (await there.say(mail(PLAIN_PDF), to="+12125550123@fax.test"))[0] == 550


async def handed_over(port: int, message: bytes, *options: str) -> int:
    """Hand a mail over with these options and no others; return the last code."""

    def talk() -> int:
        with smtplib.SMTP("127.0.0.1", port, timeout=60) as client:
            client.ehlo("desk.acme.test")
            code, _ = client.mail("desk@acme.test", options)
            if code == 250:
                code, _ = client.rcpt(ADDRESS)
            return client.data(message)[0] if code == 250 else code

    try:
        return await asyncio.to_thread(talk)
    except smtplib.SMTPDataError as error:
        return error.smtp_code


async def test_mails_share_the_account_of_memory(config: Config, authorisation: bytes) -> None:
    """A mail that finds no room is told to come again before it is read, and nothing stays held."""
    message = mail(authorisation).as_bytes(policy=SMTP)
    needed, size = COPIES * (len(message) + LINES_BYTES), f"SIZE={len(message)}"
    async with listener(config, intake_memory_bytes_max=needed) as there:
        memory = there.vault.memory
        assert await handed_over(there.port, message, size) == 250
        assert memory.taken_bytes == 0
        with memory.share(1):
            assert await handed_over(there.port, message, size) == 451
        assert await handed_over(there.port, message) == 451, "it may be as large as any"
        assert memory.taken_bytes == 0
        assert await there.count() == 1


async def test_turns_in_the_sandbox_are_a_senders_own(
    config: Config, authorisation: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that needs no token is known by its address, a gateway by its token."""
    async with listener(config) as there:
        sandbox: Any = there.vault.sandbox
        taken, senders = sandbox._places.taken, set[str]()

        def noted(sender: str) -> Any:
            senders.add(sender)
            return taken(sender)

        monkeypatch.setattr(sandbox._places, "taken", noted)
        assert (await there.say(mail(authorisation)))[0] == 250
        assert senders == {"smtp 127.0.0.1"}
        senders.clear()
        await there.faxes.taken(authorisation)
        (sender,) = senders
        assert sender not in {"", "smtp 127.0.0.1"}
        monkeypatch.undo()


async def test_a_mail_is_as_large_as_it_says(config: Config, authorisation: bytes) -> None:
    """What comes is held against the size that was counted, and read to its end."""
    message = mail(authorisation).as_bytes(policy=SMTP)
    async with listener(config) as there:
        assert await handed_over(there.port, message, "SIZE=100") == 552
        assert there.vault.memory.taken_bytes == 0
        assert await handed_over(there.port, message, f"SIZE={len(message)}") == 250


async def test_a_mail_comes_in_as_it_was_sent(config: Config, authorisation: bytes) -> None:
    """Dots at the beginning of lines are the transport's, and a line too long is refused."""
    made = mail(authorisation, name="<dots@acme.test>")
    made.set_payload([made.get_payload(1)])
    message = made.as_bytes(policy=SMTP).replace(b"\r\n\r\n", b"\r\n\r\n..\r\n.\r\n", 1)
    async with listener(config) as there:
        assert await handed_over(there.port, message) == 250
        assert await handed_over(there.port, b"X-Long: " + b"a" * 2000 + b"\r\n\r\n") == 500
        assert there.vault.memory.taken_bytes == 0


async def test_who_is_not_named_signs_in_over_tls(
    config: Config, tmp_path: Path, authorisation: bytes
) -> None:
    """Only a gateway's token comes in from elsewhere, and it is never asked for in clear."""
    certificate, key = make_certificate(tmp_path)
    tls: Any = {"fax_listen_certificate": str(certificate), "fax_listen_key": str(key)}
    async with listener(config, fax_listen_peers=(), **tls) as there:
        token = there.api.tokens["fax-gateway"]
        assert (await there.say(mail(authorisation)))[0] == 530
        assert (await there.say(mail(authorisation), tls=True))[0] == 530
        assert (await there.say(mail(authorisation), tls=True, token="pv_wrong"))[0] == 535
        assert (await there.say(mail(authorisation), tls=True, token=token))[0] == 250
        assert (await there.say(mail(authorisation), tls=True, token=there.api.tokens["porting"]))[
            0
        ] == 550
        assert await there.count() == 1


async def test_a_session_does_not_outlive_its_token(
    config: Config, tmp_path: Path, authorisation: bytes
) -> None:
    """Who signed in before the token was revoked hands over nothing after."""
    certificate, key = make_certificate(tmp_path)
    tls: Any = {"fax_listen_certificate": str(certificate), "fax_listen_key": str(key)}
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    async with listener(config, fax_listen_peers=(), **tls) as there:
        client = aiosmtplib.SMTP(
            hostname="127.0.0.1", port=there.port, start_tls=True, tls_context=context
        )
        async with client:
            await client.login("gateway", there.api.tokens["fax-gateway"])
            message = mail(authorisation).as_bytes()
            await client.sendmail("alice@acme.test", [ADDRESS], message)
            owner = await asyncpg.connect(config.database)
            await owner.execute("update token set revoked_at = now()")
            await owner.close()
            with pytest.raises(aiosmtplib.SMTPSenderRefused) as refused:
                await client.sendmail("alice@acme.test", [ADDRESS], message)
            assert refused.value.code == 530


async def test_a_mail_has_so_many_recipients(config: Config, authorisation: bytes) -> None:
    """As many as the limit says are faxed to; the next one is told to come in another mail."""
    numbers = [f"{NUMBER[:-1]}{digit}@fax.test" for digit in range(3)]
    async with listener(config, fax_listen_recipients_max=2) as there:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=there.port, start_tls=False)
        async with client:
            refused, _ = await client.sendmail(
                "alice@acme.test", numbers, mail(authorisation).as_bytes()
            )
        assert {address: said.code for address, said in refused.items()} == {numbers[2]: 452}
        assert await there.count() == 2


async def test_while_the_vault_cannot_keep_it_the_sender_does(
    config: Config, authorisation: bytes
) -> None:
    """With the store or the database away the answer is 451, and later the mail is one fax."""
    async with listener(config) as there:
        store: Any = there.vault.stores["uk"]
        put, away = store.put, True

        async def failing(*arguments: Any, **named: Any) -> None:
            if away:
                raise ObjectStoreUnavailableError
            await put(*arguments, **named)

        store.put = failing
        assert (await there.say(mail(authorisation)))[0] == 451
        away = False
        owner = await asyncpg.connect(config.database)
        await owner.execute("alter table fax rename to fax_away")
        code, said = await there.say(mail(authorisation))
        assert code == 451, said
        await owner.execute("alter table fax_away rename to fax")
        await owner.close()
        assert await there.count() == 0
        assert (await there.say(mail(authorisation)))[0] == 250
        assert await there.count() == 1


async def test_a_mail_that_fails_half_way_comes_again_whole(
    config: Config, authorisation: bytes
) -> None:
    """Its first fax is in custody when the second fails; sent again, each is there once."""
    async with listener(config) as made:
        store: Any = made.vault.stores["uk"]
        put, puts = store.put, 0

        async def failing(*args: Any, **options: Any) -> None:
            nonlocal puts
            puts += 1
            if puts == 2:
                raise ObjectStoreUnavailableError
            await put(*args, **options)

        store.put = failing
        message = mail(authorisation, authorisation)
        assert (await made.say(message))[0] == 451
        assert await made.count() == 1
        assert (await made.say(message))[0] == 250
        assert (await made.say(message))[0] == 250
        assert await made.count() == 2


async def test_a_connection_that_is_cut_in_its_data_leaves_nothing(
    config: Config, authorisation: bytes
) -> None:
    """A mail that does not come to its end is no fax, and the next one is heard."""
    async with listener(config) as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        for line in ("", "EHLO x", "MAIL FROM:<a@acme.test>", f"RCPT TO:<{ADDRESS}>", "DATA"):
            if line:
                writer.write(line.encode() + b"\r\n")
            while (await reader.readline())[3:4] == b"-":
                pass
        message = mail(authorisation).as_bytes()
        writer.write(message[: len(message) // 2])
        await writer.drain()
        writer.transport.abort()
        assert (await made.say(mail(authorisation, name="<two@acme.test>")))[0] == 250
        assert await made.count() == 1


async def in_data(made: Listener) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection on which a mail may begin."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
    for line in ("", "EHLO x", "MAIL FROM:<a@acme.test>", f"RCPT TO:<{ADDRESS}>", "DATA"):
        if line:
            writer.write(line.encode() + b"\r\n")
        while (await reader.readline())[3:4] == b"-":
            pass
    return reader, writer


async def test_a_mail_may_take_longer_than_a_rest_and_ends_where_nothing_comes(
    config: Config, authorisation: bytes
) -> None:
    """Each phase has a limit with a name; who stands still in a mail is told, and cut off."""
    content = mail(authorisation).as_bytes(policy=SMTP)
    lines = content.splitlines(keepends=True)
    settings: dict[str, Any] = {
        "idle_seconds": 1.0,
        "upload_idle_seconds": 2.0,
        "upload_bytes_per_second_min": 1,
    }
    async with listener(config, **settings) as made:
        reader, writer = await in_data(made)
        for line in lines[:5]:
            writer.write(line)
            await asyncio.sleep(0.5)
        writer.write(b"".join(lines[5:]) + b"\r\n.\r\n")
        assert (await reader.readline()).startswith(b"250"), "twice as long as a rest may be"
        assert await reader.read() == b"", "after a second without a command"
        writer.close()
        reader, writer = await in_data(made)
        writer.write(content[: len(content) // 2])
        said = await reader.read()
        assert said == b"421 4.4.2 nothing came for 2 seconds; come again\r\n"
        writer.close()
        assert await made.count() == 1


async def test_connections_are_bounded(config: Config) -> None:
    """As many sessions as the limit says talk at once; the next one is told to come again."""
    async with listener(config, fax_listen_connections_max=2) as there:
        opened = [await asyncio.open_connection("127.0.0.1", there.port) for _ in range(2)]
        for reader, _ in opened:
            assert (await reader.readline()).startswith(b"220")
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        assert (await reader.readline()).startswith(b"421")
        writer.close()
        for _, other in opened:
            other.close()
        await asyncio.sleep(0.2)
        reader, writer = await asyncio.open_connection("127.0.0.1", there.port)
        assert (await reader.readline()).startswith(b"220")
        writer.close()


async def test_a_mail_server_hands_faxes_over_and_keeps_what_is_refused(
    config: Config, postfix: Postfix, authorisation: bytes
) -> None:
    """Postfix delivers what the vault takes, waits while it is away, bounces what is no fax."""

    async def send(message: EmailMessage) -> None:
        await aiosmtplib.send(message, hostname="127.0.0.1", port=postfix.port, start_tls=False)

    # Nobody listens yet: the mail waits in Postfix's queue.
    await send(mail(authorisation))
    await asyncio.sleep(1.0)
    async with listener(config, postfix.listener) as there:
        # A queue manager that finds a mail still locked by its last delivery comes back to it after
        # a minute, whatever the backoff time.
        for _ in range(900):
            if await there.count():
                break
            await asyncio.sleep(0.1)
        assert await there.count() == 1, postfix.log()
        await send(mail(b"MZ no fax", name="<three@acme.test>", subtype="octet-stream"))
        (bounce,) = await postfix.wait_for_mail()
        assert "only PDF and TIFF attachments are faxed" in str(bounce)
        assert await there.count() == 1
