"""
A fax as a mail: what its recipient gets.

The Message-ID comes from the fax alone, so that a mail that had to be sent twice is seen to be one.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from enum import StrEnum

from vault.domain.faxes import Fax, Numbers
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Letter:
    """What goes into the envelope: `secret` is the entity that S/MIME may encrypt."""

    headers: dict[str, str]
    secret: bytes

    def plain(self) -> bytes:
        """Return the whole message as it goes where no S/MIME is wanted."""
        return self.with_entity(self.secret)

    def with_entity(self, entity: bytes) -> bytes:
        """Return the message with this entity, which begins with its own MIME headers."""
        lines = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        return lines.encode("ascii") + entity


def compose(
    fax: Fax, numbers: Numbers, pdf: bytes, *, sender: str, recipient: str, now: datetime
) -> Letter:
    """Return the letter that brings a fax; numbers stand in the secret part alone."""
    pages = "1 page" if fax.pages == 1 else f"{fax.pages} pages"
    inner = EmailMessage(policy=SMTP)
    inner.set_content(
        f"A fax of {pages} came in at {fax.received_at:%Y-%m-%d %H:%M} UTC.\n\n"
        f"From: {numbers.caller or 'a number that was withheld'}\n"
        f"To:   {numbers.callee}\n"
    )
    inner.add_attachment(
        pdf, maintype="application", subtype="pdf", filename=f"fax-{fax.received_at:%Y%m%d}.pdf"
    )
    return Letter(
        headers={
            "From": sender,
            "To": recipient,
            "Subject": f"Fax, {pages}",
            "Date": format_datetime(now),
            "Message-ID": f"<{fax.id}@{sender.rpartition('@')[2]}>",
            # Nobody's holiday notice answers a fax (RFC 3834).
            "Auto-Submitted": "auto-generated",
        },
        secret=inner.as_bytes(),
    )


# ---- Where faxes go by mail: the operator's table from numbers to addresses, and how each is
# protected.
#
# A number that stands in no row is delivered by a gateway that fetches it. TLS with a certificate
# that verifies is required unless the recipient's domain is named as `opportunistic`.

_NUMBER = re.compile(r"\+[1-9][0-9]{0,14}\*?", re.ASCII)
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@([A-Za-z0-9.-]{1,253})", re.ASCII)
_HOST = re.compile(r"([A-Za-z0-9.:-]+|\[[0-9a-fA-F:]+\]):([0-9]{1,5})", re.ASCII)


class Tls(StrEnum):
    """`required` verifies the certificate or does not send; `opportunistic` takes what there is."""

    REQUIRED = "required"
    OPPORTUNISTIC = "opportunistic"


@dataclass(frozen=True, slots=True)
class Route:
    """Where the faxes of a number, or of all with a prefix (`+4420*`), go."""

    number: str
    address: str
    #: Where its faxes are kept, where that is not the region of the number's country.
    region: str | None = None
    #: The recipient's S/MIME certificate, a file: then nobody else can read the mail.
    certificate: str | None = None

    @property
    def domain(self) -> str:
        """The address's domain, in lower case."""
        return self.address.rpartition("@")[2].lower()


@dataclass(frozen=True, slots=True)
class Domain:
    """How mail for a domain is sent: by which next hop, and how TLS is held to."""

    tls: Tls = Tls.REQUIRED
    host: str | None = None
    #: Certificates that are trusted there, where the system's are not; a file.
    ca: str | None = None


@dataclass(frozen=True, slots=True)
class Routes:
    """The whole table."""

    exact: Mapping[str, Route] = field(default_factory=dict)
    #: Longest prefix first.
    prefixes: tuple[tuple[str, Route], ...] = ()
    domains: Mapping[str, Domain] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.exact or self.prefixes)

    def find(self, number: str) -> Route | None:
        """Return the number's own route, else that of its longest prefix."""
        if found := self.exact.get(number):
            return found
        return next((route for start, route in self.prefixes if number.startswith(start)), None)

    def domain(self, name: str) -> Domain:
        """Return how to send to a domain."""
        return self.domains.get(name, Domain())


def parse_routes(text: str) -> Routes:
    """Return the table of `faxes.toml`; raises `ConfigurationError` naming the row."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"faxes.toml cannot be read: {error}") from error
    if unknown := set(tables) - {"routes", "domains"}:
        raise ConfigurationError(f"faxes.toml has no table {min(unknown)!r}")
    exact, prefixes, domains = dict[str, Route](), dict[str, Route](), dict[str, Domain]()
    for position, row in enumerate(tables.get("routes", ()), start=1):
        route = _route(f"faxes.toml, route {position}", row)
        place = prefixes if route.number.endswith("*") else exact
        if place.setdefault(route.number, route) is not route:
            raise ConfigurationError(f"faxes.toml, route {position}: {route.number} has two routes")
    for position, row in enumerate(tables.get("domains", ()), start=1):
        name, domain = _domain(f"faxes.toml, domain {position}", dict(row))
        domains[name] = domain
    ordered = sorted(prefixes.items(), key=lambda item: -len(item[0]))
    return Routes(exact, tuple((number[:-1], route) for number, route in ordered), domains)


def check_hosts(routes: Routes, next_hop: str) -> Routes:
    """Return the routes if each has a next hop; raises `ConfigurationError` if one has none."""
    if next_hop:
        parse_host(next_hop, "fax_smtp")
        return routes
    for route in (*routes.exact.values(), *(route for _, route in routes.prefixes)):
        if routes.domain(route.domain).host is None:
            raise ConfigurationError(
                f"set fax_smtp, or a host for the domain {route.domain} in faxes.toml"
            )
    return routes


def _route(name: str, row: Mapping[str, object]) -> Route:
    fields = _texts(name, row, {"number", "address"}, {"region", "certificate"})
    route = Route(**fields)
    if not _NUMBER.fullmatch(route.number) or not _ADDRESS.fullmatch(route.address):
        raise ConfigurationError(f'{name}: write number = "+442079460123" or "+4420*" and address')
    if route.region is not None and route.region not in REGIONS:
        raise ConfigurationError(f"{name}: region must be one of {', '.join(REGIONS)}")
    return route


def _domain(name: str, row: dict[str, object]) -> tuple[str, Domain]:
    fields = _texts(name, row, {"domain"}, {"tls", "host", "ca"})
    domain = fields.pop("domain").lower()
    try:
        tls = Tls(fields.pop("tls", Tls.REQUIRED))
    except ValueError:
        raise ConfigurationError(f"{name}: tls must be one of {', '.join(Tls)}") from None
    if "host" in fields:
        parse_host(fields["host"], name)
    return domain, Domain(tls=tls, **fields)


def _texts(
    name: str, row: Mapping[str, object], needed: set[str], optional: set[str]
) -> dict[str, str]:
    if not needed <= set(row) <= needed | optional:
        raise ConfigurationError(
            f"{name} must have {', '.join(sorted(needed))} and may have "
            f"{', '.join(sorted(optional))}"
        )
    if not all(isinstance(value, str) and value for value in row.values()):
        raise ConfigurationError(f"{name} must hold texts")
    return {key: str(value) for key, value in row.items()}


def parse_host(text: str, name: str, *, port_min: int = 1) -> tuple[str, int]:
    """Return host and port of `HOST:PORT`; raises `ConfigurationError`."""
    match = _HOST.fullmatch(text)
    if match is None or not port_min <= int(match[2]) < 65536:
        raise ConfigurationError(f"{name}: write a host as smtp.example:25")
    return match[1].strip("[]"), int(match[2])
