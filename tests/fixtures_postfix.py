"""A real Postfix from Debian, with its own configuration, queue and mailboxes, on a high port."""

import asyncio
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage, Message
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Self, cast

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

WAIT_TRIES = 200

MAIN = """
compatibility_level = 3.6
queue_directory = {home}/queue
data_directory = {home}/data
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
maillog_file = {home}/log/postfix
maillog_file_prefixes = {home}
mail_owner = postfix
setgid_group = postdrop
myhostname = mail.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
local_recipient_maps =
smtpd_tls_security_level = {tls}
smtpd_tls_loglevel = 1
smtpd_tls_cert_file = {home}/cert.pem
smtpd_tls_key_file = {home}/key.pem
virtual_mailbox_domains = acme.test
virtual_mailbox_base = {home}/mail
virtual_mailbox_maps = static:inbox/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{ gone@acme.test = 550 no such
 fax mailbox +442079460123 }}, {{ later@acme.test = 450 come again }} }}, permit_mynetworks, reject
transport_maps = inline:{{ {{ fax.test = smtp:[127.0.0.1]:{listener} }} }}
relay_domains = fax.test
smtp_tls_security_level = {smtp_tls}
smtp_tls_CAfile = {home}/cert.pem
minimal_backoff_time = 3s
maximal_backoff_time = 4s
queue_run_delay = 1s
"""
MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def make_certificate(directory: Path, *, common_name: str = "127.0.0.1") -> tuple[Path, Path]:
    """Write a certificate that signs itself, for mail too, and its key."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    cert_path, key_path = directory / "cert.pem", directory / "key.pem"
    cert_path.write_bytes(certificate.public_bytes(pem))
    form, secret = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    key_path.touch(0o600)
    key_path.write_bytes(key.private_bytes(pem, form, secret))
    return cert_path, key_path


@dataclass
class Postfix:
    """A running Postfix."""

    home: Path
    port: int
    #: Where it sends mail for fax.test.
    listener: int

    @property
    def ca(self) -> str:
        """The file with the certificate that it shows."""
        return str(self.home / "cert.pem")

    def mails(self) -> list[Message]:
        """Return what lies in the mailbox."""
        new = self.home / "mail" / "inbox" / "new"
        paths = sorted(new.iterdir()) if new.exists() else []
        return [message_from_bytes(path.read_bytes(), policy=default) for path in paths]

    async def wait_for_mail(self, count: int = 1) -> list[Message]:
        """Return the mails once there are so many."""
        for _ in range(WAIT_TRIES):
            if len(found := self.mails()) >= count:
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(self.log())

    def log(self) -> str:
        """Return what it said."""
        path = self.home / "log" / "postfix"
        return path.read_text() if path.exists() else ""


def attachment(mail: Message) -> bytes:
    """Return the content of the mail's attachment."""
    (part,) = cast("EmailMessage", mail).iter_attachments()
    content = part.get_content()
    assert isinstance(content, bytes)
    return content


@pytest.fixture
def postfix(request: pytest.FixtureRequest) -> Iterator[Postfix]:
    """Run Postfix; `request.param` may name its TLS levels, as `may/encrypt`."""
    if os.geteuid() != 0:
        pytest.skip("Postfix starts as root only")
    tls, _, smtp_tls = getattr(request, "param", "may/may").partition("/")
    # Not under pytest's directory, which other accounts may not enter.
    home = Path(tempfile.mkdtemp(prefix="postfix-"))
    try:
        home.chmod(0o755)
        for name in ("queue", "data", "mail", "log", "etc"):
            (home / name).mkdir()
        shutil.chown(home / "data", "postfix", "postfix")
        shutil.chown(home / "mail", "postfix", "postfix")
        make_certificate(home)
        made = Postfix(home, free_port(), free_port())
        account = pwd.getpwnam("postfix")
        (home / "etc" / "main.cf").write_text(
            MAIN.format(
                home=home,
                tls=tls,
                smtp_tls=smtp_tls or "may",
                listener=made.listener,
                uid=account.pw_uid,
                gid=account.pw_gid,
            )
        )
        (home / "etc" / "master.cf").write_text(MASTER.format(port=made.port))
        _postfix(home, "start")
        try:
            _wait_until_it_listens(made)
            yield made
        finally:
            _postfix(home, "stop")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _postfix(home: Path, command: str) -> None:
    done = subprocess.run(
        ["postfix", "-c", str(home / "etc"), command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout


def _wait_until_it_listens(made: Postfix) -> None:
    for _ in range(WAIT_TRIES):
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", made.port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(made.log())


class HostilePeer:
    """An SMTP peer that says what a test wants, as slowly as it wants, and then may cut."""

    def __init__(self, script: dict[str, bytes | float | None]) -> None:
        #: By the first word of a command, or `greeting` or `dot`: bytes, seconds of silence, a cut.
        self.script = script
        self.port = 0
        self.heard: list[str] = []
        self.lines: list[str] = []
        self.data = b""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", 0, limit=1 << 22)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()

    async def _say(self, writer: asyncio.StreamWriter, what: str, usual: bytes) -> bool:
        said = self.script.get(what, usual)
        if said is None:
            writer.transport.abort()
            return False
        if isinstance(said, float):
            await asyncio.sleep(said)
            return True
        writer.write(said)
        await writer.drain()
        return True

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if not await self._say(writer, "greeting", b"220 peer ESMTP\r\n"):
                return
            while line := await reader.readline():
                word = line.split()[0].decode("ascii", "replace").upper() if line.split() else ""
                self.heard.append(word)
                self.lines.append(line.decode("ascii", "replace").strip())
                usual = {
                    "EHLO": b"250-peer\r\n250 8BITMIME\r\n",
                    "DATA": b"354 go on\r\n",
                }.get(word, b"250 fine\r\n")
                if not await self._say(writer, word, usual):
                    return
                if word == "DATA" and isinstance(self.script.get("DATA", b"354"), bytes):
                    self.data = await reader.readuntil(b"\r\n.\r\n")
                    if not await self._say(writer, "dot", b"250 taken\r\n"):
                        return
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
