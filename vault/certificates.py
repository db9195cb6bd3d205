"""
The certificate that a listener shows, as its files are now.

When a file changes (certificate, key or the authority of clients), a whole new context is made of
all of them, and connections that come from then on are shown that one: nothing of the one before is
left in it, neither a key of another algorithm nor an authority that was withdrawn. Connections that
are open go on as they are. Files that do not fit are refused and said in the log, and the context
before stays.
"""

import asyncio
import logging
import ssl
from pathlib import Path

from keys.ground.secret_files import ExposedError, check_owner_only
from vault.errors import ConfigurationError

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0


class Certificate:
    """A certificate, its key and the authority of clients; `keep` takes up what changes."""

    def __init__(
        self, certificate: str, key: str = "", client_ca: str = "", *, setting: str, http: bool
    ) -> None:
        """Read the files; `setting` names them in errors. Raises `ConfigurationError`."""
        self._certificate, self._key, self._client_ca = certificate, key, client_ca
        self._setting, self._http = setting, http
        # Looked at first: what changes while it is read is then taken up at the next look.
        self._seen = self._stamp()
        self._context = self._load()

    def context(self) -> ssl.SSLContext:
        """Return the context of connections that come now."""
        return self._context

    async def keep(self) -> None:
        """Take up new files whenever they change, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp == self._seen:
                continue
            try:
                self._context = await asyncio.to_thread(self._load)
            except ConfigurationError as error:
                log.warning("the old certificate stays: %s", error)
                continue
            self._seen = stamp
            log.info("the new certificate is in use")

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self._http:
            context.set_alpn_protocols(["http/1.1"])
        try:
            # Where the key is in the certificate's file, that one is the secret.
            secret = Path(self._key or self._certificate)
            check_owner_only(secret, secret.stat())
            context.load_cert_chain(self._certificate, self._key or None, _no_password)
            if self._client_ca:
                # Who has a certificate shows it; whether one is needed is what their token says.
                context.verify_mode = ssl.CERT_OPTIONAL
                context.load_verify_locations(self._client_ca)
        except ExposedError as error:
            raise ConfigurationError(f"{self._setting}: {error}") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or getattr(error, "reason", None)
            raise ConfigurationError(
                f"{self._setting} {self._certificate} and its key cannot be used: "
                f"{reason or 'unusable'}"
            ) from None
        return context

    def _stamp(self) -> tuple[object, ...]:
        """Return what changes with the files; one that is away for a moment is a change, too."""
        stamps: list[object] = []
        for name in (self._certificate, self._key, self._client_ca):
            try:
                found = Path(name).stat() if name else None
            except OSError:
                found = None
            stamps.append((found.st_mtime_ns, found.st_ino, found.st_size) if found else None)
        return tuple(stamps)


def _no_password() -> str:
    """Refuse a key under a passphrase, which OpenSSL would ask for on the terminal."""
    raise ValueError("the key has a passphrase")
