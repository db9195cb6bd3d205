"""
Sends a mail to its next hop, over TLS unless the operator allows otherwise.

A reply of 4xx, a connection that is cut and a peer that is too slow are all `MailDeferredError`:
the next hop did not say that it has the mail. Only a 5xx to the recipient or to the data is
`MailRefusedError`; one that is said before, to the greeting, the sign-in or the sender, is about us
and not about the mail. Nothing is written to disk, and a bounce is asked to carry headers only.
"""

import asyncio
import contextlib
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import aiosmtplib
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509 import load_pem_x509_certificate

from keys.ground.secret_files import ExposedError, read_owner_only
from vault.domain.fax_mail import Domain, Letter, Route, Tls, parse_host
from vault.errors import MailDeferredError, MailRefusedError
from vault.process.streams import reset

log = logging.getLogger(__name__)

IMPLICIT_TLS_PORT = 465
#: How long the next hop may take to say goodbye after it took the mail.
QUIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class SmtpMailer:
    """The next hop of all mail whose domain names no other."""

    host: str
    sender: str
    user: str
    password_file: str
    #: How long a command may take, and how long the whole mail.
    timeout_seconds: float

    async def send(self, route: Route, domain: Domain, envelope: str, letter: Letter) -> str:
        """Return what the next hop said when it took the mail."""
        try:
            # Both read files, which nothing does on the loop.
            message = await asyncio.to_thread(_protected, letter, route)
            context = await asyncio.to_thread(_context, domain)
        except (OSError, ValueError) as error:
            raise MailDeferredError(
                f"a certificate of {route.domain} cannot be used: {type(error).__name__}"
            ) from None
        client, said = self._client(domain, context), ""
        try:
            async with asyncio.timeout(self.timeout_seconds):
                said = await self._send(client, route, domain, envelope, message)
        except ExposedError as error:
            # The reason becomes part of the fax, which programs read; the path is for the log.
            log.error("fax_smtp_password_file: %s", error)
            raise MailDeferredError("fax_smtp_password_file cannot be used") from None
        except aiosmtplib.SMTPRecipientsRefused as error:
            refused = error.recipients[0]
            raise _refusal(refused.code, refused.message) from None
        except aiosmtplib.SMTPDataError as error:
            raise _refusal(error.code, error.message) from None
        except aiosmtplib.SMTPResponseException as error:
            raise MailDeferredError(f"{error.code} {error.message}") from None
        except (aiosmtplib.SMTPException, TimeoutError, OSError, ValueError) as error:
            raise MailDeferredError(f"next hop: {type(error).__name__}") from None
        else:
            # It has the mail: whether it answers the goodbye changes nothing.
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=QUIT_SECONDS)
            return said
        finally:
            # What it has not said that it has is not pushed to it any further.
            if not said and client.transport is not None:
                reset(cast(asyncio.WriteTransport, client.transport))
            client.close()

    def _client(self, domain: Domain, context: ssl.SSLContext) -> aiosmtplib.SMTP:
        host, port = parse_host(domain.host or self.host, "fax_smtp")
        implicit = port == IMPLICIT_TLS_PORT
        return aiosmtplib.SMTP(
            hostname=host,
            port=port,
            use_tls=implicit,
            # None takes TLS where the peer offers it, True does without no mail.
            start_tls=False if implicit else (domain.tls is Tls.REQUIRED or None),
            tls_context=context,
            timeout=self.timeout_seconds,
        )

    async def _send(
        self, client: aiosmtplib.SMTP, route: Route, domain: Domain, envelope: str, message: bytes
    ) -> str:
        await client.connect()
        # The password is for `fax_smtp` alone, and only once its certificate was verified.
        if self.user and domain.host is None and domain.tls is Tls.REQUIRED:
            path = Path(self.password_file)
            await client.login(self.user, await asyncio.to_thread(read_owner_only, path))
        dsn = client.supports_extension("dsn")
        _, reply = await client.sendmail(
            self.sender,
            [route.address],
            message,
            mail_options=["RET=HDRS", f"ENVID={envelope}"] if dsn else [],
            rcpt_options=["NOTIFY=SUCCESS,FAILURE"] if dsn else [],
        )
        return f"250 {reply}"


def _refusal(code: int, said: str) -> MailDeferredError | MailRefusedError:
    kind = MailRefusedError if 500 <= code < 600 else MailDeferredError
    return kind(f"{code} {said}")


def _context(domain: Domain) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=domain.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if domain.tls is Tls.OPPORTUNISTIC:
        # Whoever would take it in clear gains by a certificate that nobody checks (RFC 7435).
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _protected(letter: Letter, route: Route) -> bytes:
    """Return the message, its entity encrypted for the recipient where the route has a key."""
    if route.certificate is None:
        return letter.plain()
    certificate = load_pem_x509_certificate(Path(route.certificate).read_bytes())
    sealed = (
        pkcs7.PKCS7EnvelopeBuilder()
        .set_data(letter.secret)
        .set_content_encryption_algorithm(AES256)
        .add_recipient(certificate)
        .encrypt(serialization.Encoding.SMIME, [pkcs7.PKCS7Options.Binary])
    )
    return letter.with_entity(sealed.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
