"""
One frozen `Config`, read once from an optional `portvault.toml` and `PORTVAULT_*` over it.

An unknown name, in the file or among the variables, stops the start: a setting that was mistyped
must not be silently the default. Secrets are files or variables, never arguments, and never shown.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from keys.errors import IntegrityError
from keys.ground.secret_files import ExposedError, check_owner_only, read_owner_only
from keys.notes.note import CosignatureVerifier
from vault.config.addresses import HIDDEN, shown_address
from vault.config.webhooks import Webhook, parse_webhooks
from vault.domain.regions import REGIONS
from vault.errors import ConfigurationError

# ---- The settings of faxes; `Config` has them beside its own. -----------------------------------


@dataclass(frozen=True, slots=True)
class FaxSettings:
    """Limits and times of faxes, of the sandbox that looks into them, and of mail."""

    #: The largest fax taken.
    fax_bytes_max: int = 10 * 1024 * 1024
    #: The most pages of a fax that is taken.
    fax_pages_max: int = 500
    #: A fax that is not taken into custody within so long after its first byte is dropped.
    fax_receive_seconds_max: float = 120.0
    #: A failed delivery is tried again after so long, then twice as long each time.
    fax_retry_seconds: float = 60.0
    #: A failed delivery waits no longer than this before the next try.
    fax_retry_seconds_max: float = 3600.0
    #: An attempt to deliver a fax that takes longer counts as lost.
    fax_attempt_seconds_max: float = 600.0
    #: How many faxes share a scope of the key tree at most.
    fax_scope_faxes_max: int = 1000
    #: How long faxes that come are put into the same scope of the key tree.
    fax_scope_seconds_max: float = 60.0
    #: How long the receipt of a fax stays: the group's rule for call detail records.
    fax_receipt_days_max: int = 730
    #: How many sandboxed children look into faxes and other files.
    sandbox_processes_max: int = 2
    #: How long a child that looks into a fax may take for it.
    sandbox_timeout_seconds: float = 20.0
    #: What memory a child that looks into faxes may use.
    sandbox_memory_bytes_max: int = 1024 * 1024 * 1024
    #: Where faxes to numbers of no region's country are kept, unless whoever brings one says it or
    #: has one region alone.
    fax_other_region: str = ""
    #: The next hop of faxes that go by mail, as `smtp.example:25`.
    fax_smtp: str = ""
    #: The name to sign in with at `fax_smtp`, where it asks.
    fax_smtp_user: str = ""
    #: A file that holds the password for `fax_smtp`.
    fax_smtp_password_file: str = ""
    #: The sender's address of mails that carry faxes; reports of their delivery go there.
    fax_mail_from: str = "fax@localhost"
    #: How long the next hop may take for a mail.
    fax_mail_seconds_max: float = 120.0
    #: How many mails with faxes are on their way to the next hop at once.
    fax_relays_max: int = 8
    #: Where mails that are to be faxed come in, as `127.0.0.1:2525`.
    fax_listen: str = ""
    #: The domains of the addresses to which mails are faxed.
    fax_listen_domains: tuple[str, ...] = ()
    #: Networks whose mail is taken without a token; all others sign in, over TLS.
    fax_listen_peers: tuple[str, ...] = ()
    #: The PEM file of the certificate that `fax_listen` shows for STARTTLS.
    fax_listen_certificate: str = ""
    #: The PEM file of the key of `fax_listen_certificate`, without a passphrase.
    fax_listen_key: str = ""
    #: The most numbers that one mail may be faxed to.
    fax_listen_recipients_max: int = 20
    #: The most attachments of one mail that are faxed.
    fax_listen_attachments_max: int = 10
    #: Connections at once to `fax_listen` that carry a mail.
    fax_listen_connections_max: int = 20
    #: The most faxes with one Message-ID that look alike in size and masked number, and differ.
    fax_listen_same_name_max: int = 50


# ---- The settings of carriers' webhooks; `Config` has them beside its own. ----------------------


@dataclass(frozen=True, slots=True)
class CarrierSettings(FaxSettings):
    """What carriers sign with; a carrier without one is refused."""

    #: Telnyx's public key (base64), from its portal.
    telnyx_public_key: str = ""
    #: Twilio's auth token; its signature names `public_url`, which must be set, too.
    twilio_auth_token: str = field(default="", repr=False)
    #: `USER:PASSWORD` of the subscription's callback credentials at Bandwidth.
    bandwidth_credentials: str = field(default="", repr=False)


# ---- Settings. ----------------------------------------------------------------------------------

PREFIX = "PORTVAULT_"
FILE_NAME = "portvault.toml"
DOCUMENT_BYTES_MAX = 25 * 1024 * 1024

SECRETS = frozenset(
    {"s3_secret_key", "oidc_client_secret", "twilio_auth_token", "bandwidth_credentials"}
)
#: What may lie in a file of its own, named by PORTVAULT_NAME_FILE.
SECRET_FILES = (*sorted(SECRETS), "database", "database_owner")
#: Renamed settings, which mean more; and those that are gone, with what says it now.
RENAMED = {"fax_memory_bytes_max": "intake_memory_bytes_max"}
REMOVED = {
    "fax_custody_seconds_max": (
        "the retention policy's row `fax-undelivered` says how long a fax waits for its delivery; "
        "change it with `portvault retention apply FILE`"
    )
}
# Read by the command line as a client and by the scripts, not by the service.
CLIENT_VARIABLES = frozenset({"TOKEN", "TOKEN_FILE", "SERVER", "VENV"})


@dataclass(frozen=True, slots=True)
class Region:
    """Where one region's bytes and root keys live, where it differs from the common setting."""

    objects: str | None = None
    custodian: str | None = None
    custodian_before: str | None = None


@dataclass(frozen=True, slots=True)
class Config(CarrierSettings):
    """Every setting with its default; units are in the names."""

    home: Path = field(default_factory=lambda: Path.home() / ".portvault")
    #: Bind address; on anything but loopback TLS, or a proxy that is trusted, is needed.
    host: str = "127.0.0.1"
    #: The port that is listened on; 0 is any that is free.
    port: int = 8700
    #: The PEM file of the certificate for TLS; taken up without a restart when it changes.
    tls_certificate: str = ""
    #: The PEM file of the key of `tls_certificate`, without a passphrase; taken up without a
    #: restart when it changes.
    tls_key: str = ""
    #: Who signs the client certificates that tokens may be bound to.
    tls_client_ca: str = ""
    #: Addresses or networks of the proxies that may speak plain HTTP; nobody else may then.
    trusted_proxies: tuple[str, ...] = ()
    #: Connections at once, of all listeners together; fewer where the process has too few
    #: descriptors, as `doctor` says.
    connections_max: int = 4096
    #: Connections at once of one address (of IPv6: a /64) that is no trusted proxy's; fewer where
    #: the process has too few descriptors.
    connections_per_address_max: int = 1024
    #: How long a connection may take to agree on TLS.
    tls_handshake_seconds: float = 10.0
    #: How long a connection may take to send the head of a request.
    header_seconds: float = 20.0
    #: A connection that rests between two requests, or a reader that takes nothing, for so long
    #: is cut.
    idle_seconds: float = 75.0
    #: How long requests that are under way may take to end when the process is told to stop.
    shutdown_seconds: float = 20.0
    #: The regions this deployment serves.
    regions: tuple[str, ...] = REGIONS
    #: Where this deployment's machines are: what a token of several regions reads arrives there,
    #: unless the token says otherwise. By default the first of `regions`.
    located: str = ""
    #: `embedded:` or a postgresql:// address.
    database: str = field(default="embedded:", repr=False)
    #: The address of the database for its owner, who migrates, dumps and restores, where `database`
    #: is that of an account that owns nothing.
    database_owner: str = field(default="", repr=False)
    #: `dir:PATH/{region}` or `s3+https://HOST/BUCKET-{region}`.
    objects: str = ""
    #: Where root keys lie: `file:DIRECTORY`, `pkcs11:…` (an HSM) or `transit:https://…` (a key
    #: service).
    custodian: str = ""
    #: Where root keys still lie while `portvault keys rotate-custodian` moves them.
    custodian_before: str = ""
    #: The access key that the vault signs in with at the S3 server.
    s3_access_key: str = ""
    #: The secret key that belongs to `s3_access_key`.
    s3_secret_key: str = field(default="", repr=False)
    #: The region that signatures for the S3 server name: the server's, not the vault's.
    s3_region: str = "us-east-1"
    #: The largest document taken.
    document_bytes_max: int = DOCUMENT_BYTES_MAX
    #: What all bodies together may take of memory while they come and go: faxes, mails, what the
    #: relay sends, exports, parts of documents. The next is told to come again.
    intake_memory_bytes_max: int = 256 * 1024 * 1024
    #: Uploads in progress at once. Nobody has more of them than are still free, so that there is
    #: one for whoever comes; the next one is told to come again.
    uploads_max: int = 256
    #: An upload or a mail of which nothing comes for so long is dropped.
    upload_idle_seconds: float = 60.0
    #: An upload or a mail that comes with fewer bytes a second is dropped, once the vault has
    #: waited longer than `upload_idle_seconds` for it in all.
    upload_bytes_per_second_min: int = 2048
    #: How often shredded documents are sealed, which makes them irrecoverable.
    seal_interval_seconds: float = 60.0
    #: How long beyond `seal_interval_seconds` a seal may be outstanding before the vault is not
    #: ready.
    seal_overdue_seconds: float = 600.0
    #: How often the key tree's copy in the bucket is brought up to date, at the latest.
    mirror_interval_seconds: float = 60.0
    #: How often the worker looks at all data at rest for damage, a little at a time.
    damage_look_seconds: float = 86400.0
    #: Standbys, by application_name, that must have replayed a seal before the old root dies.
    standbys: tuple[str, ...] = ()
    #: How long a process may keep an unwrapped key, in a stream that is not looked at again, too; a
    #: shred is irrecoverable only after that.
    key_cache_seconds: float = 5.0
    #: How long after `ported` or `cancelled` documents wait, so that a reversal can reopen custody.
    reversal_grace_seconds: float = 3600.0
    #: Nothing is shredded by its time while the worker's clock is further ahead of the database's.
    clock_ahead_seconds_max: float = 60.0
    #: Nothing is shredded by its time when the worker's clock has gone further since it last
    #: looked, unless two people agree.
    clock_step_seconds_max: float = 7 * 86400.0
    #: The share of a region's documents that goes by its time within a day; more needs two people.
    expire_share_max: float = 0.1
    #: So many documents of a region may go by their time within a day, whatever `expire_share_max`
    #: says.
    expire_documents_min: int = 1000
    #: The age at which the key of the index of orders' numbers is replaced.
    number_index_days: int = 90
    #: An upload that takes longer is cut off, and swept up.
    receiving_seconds_max: float = 3600.0
    #: How long a request waits for its access record to be durable before it is refused.
    record_timeout_seconds: float = 5.0
    #: Nothing is handed out while a record waits for longer to be published in the access log.
    record_publish_seconds_max: float = 60.0
    #: How often an open stream records how far it is; one that cannot is cut.
    record_renewal_seconds: float = 5.0
    #: How often open streams are looked at again, and cut when their token, session or document has
    #: ended; nothing goes out for longer than `key_cache_seconds` without such a look.
    stream_look_seconds: float = 0.5
    #: The longest time that a stream that goes out may be open; then it is cut.
    stream_seconds_max: float = 3600.0
    #: Where people reach the vault, as `https://vault.example`; needed for their sign-in.
    public_url: str = ""
    #: The identity provider that people sign in at.
    oidc_issuer: str = ""
    #: What the vault is called at the identity provider.
    oidc_client_id: str = ""
    #: What the vault proves itself with to the identity provider.
    oidc_client_secret: str = field(default="", repr=False)
    #: What the vault asks the identity provider for.
    oidc_scopes: str = "openid profile groups"
    #: The claim that lists a person's groups.
    oidc_claim: str = "groups"
    #: What role each group means, as `GROUP=ROLE`.
    oidc_roles: tuple[str, ...] = ()
    #: What regions each group means, as `GROUP=REGION`.
    oidc_regions: tuple[str, ...] = ()
    #: Where the people of each group read from, as `GROUP=REGION`.
    oidc_located: tuple[str, ...] = ()
    #: How many documents one principal may read in an hour.
    reads_per_hour_max: int = 3600
    #: Of how many orders one principal may read or see details in an hour.
    orders_per_hour_max: int = 1200
    #: How many faxes one principal may read in an hour; faxes pass in larger numbers.
    faxes_per_hour_max: int = 1_000_000
    #: Refusals of one principal that each process records singly in a minute; those past it are
    #: answered with 429, and one record says how many they were.
    refusals_per_minute_max: int = 120
    #: Refusals from one address that each process records singly in a minute; those past it are
    #: counted, as those of a principal are.
    refusals_per_address_max: int = 1200
    #: How long a person stays signed in.
    session_seconds: float = 28800.0
    #: How long a request for an approval waits for the second person, and then for its use.
    approval_seconds: float = 86400.0
    #: How long approvals stay after their time is over.
    approval_kept_days: int = 400
    #: How long a signal is kept; one that still waits to be delivered stays.
    signal_kept_days: int = 90
    #: How long the token of an opened break-glass credential is good.
    break_glass_seconds: float = 3600.0
    #: Public keys of those who cosign the log's checkpoints (NAME+HASH+BASE64).
    witnesses: tuple[str, ...] = ()
    #: How long the object store may be silent before it counts as away.
    store_timeout_seconds: float = 30.0
    #: Connections to the database of one process.
    database_pool_max: int = 20
    #: How long each statement to the database may take.
    database_timeout_seconds: float = 10.0
    #: How long a session of the database may be idle; then it ends and lets go of its locks, as it
    #: has to when its machine is gone.
    database_idle_seconds: float = 600.0
    #: Whether `serve` runs the reconcilers too.
    worker: bool = True
    #: What is set for one region alone: its objects and custodian.
    region_settings: Mapping[str, Region] = field(default_factory=dict)
    #: Where signals go, by name: `[webhook.NAME]` in the file.
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    #: How long before a document goes the signal `document.due_soon` is sent.
    due_soon_seconds: float = 7 * 86400.0

    def objects_uri(self, region: str) -> str:
        """Return the address of the region's bucket."""
        own = self.region_settings.get(region, Region()).objects
        template = own or self.objects or f"dir:{self.home}/objects/{{region}}"
        return template.replace("{region}", region)

    def custodian_uri(self, region: str) -> str:
        """Return the custodian's address; by default a directory beside the data, not in it."""
        own = self.region_settings.get(region, Region()).custodian
        return own or self.custodian or f"file:{self.home}-keys"

    def custodian_before_uri(self, region: str) -> str | None:
        """Return the address of the custodian that the region is moved away from, if it is."""
        own = self.region_settings.get(region, Region()).custodian_before
        return own or self.custodian_before or None

    @property
    def seal_seconds_max(self) -> float:
        """For how long something may wait for a seal before the vault says that it is overdue."""
        return self.seal_interval_seconds + self.seal_overdue_seconds

    @property
    def signing_key_path(self) -> Path:
        """Where the key that signs the log and certificates lies: beside the data, not in it."""
        return self.home.with_name(self.home.name + "-keys") / "signing.key"

    def shown(self) -> dict[str, Any]:
        """Return every setting for people to see, with secrets masked."""
        shown: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in SECRETS:
                value = "***" if value else ""
            elif item.name in ("database", "database_owner"):
                value = shown_address(value)
            elif item.name == "region_settings":
                value = {name: _without_nothing(region) for name, region in value.items()}
            elif item.name == "webhooks":
                value = {name: _without_query(webhook.url) for name, webhook in value.items()}
            shown[item.name] = str(value) if isinstance(value, Path) else value
        return shown


def load_config(environment: Mapping[str, str] | None = None) -> Config:
    """Read the file and the variables; raises `ConfigurationError` that names what is wrong."""
    variables = _variables(os.environ if environment is None else environment)
    home = Path(variables.pop("home", "") or Path.home() / ".portvault").expanduser().absolute()
    values, regions = _read_file(home / FILE_NAME)
    for name in SECRET_FILES:
        if path := variables.pop(f"{name}_file", None):
            variables[name] = _read_secret(Path(path))
    webhooks = values.pop("webhooks", {})
    values.update(variables)
    settings: dict[str, Any] = {"home": home, "region_settings": regions, "webhooks": webhooks}
    kinds = {item.name: item.type for item in fields(Config)}
    for name, value in values.items():
        _check_earlier(name, name, RENAMED.get(name, ""))
        if name not in kinds or name in settings:
            raise ConfigurationError(
                f"there is no setting {name!r}; `portvault config` lists them all"
            )
        settings[name] = _convert(name, kinds[name], value)
    return _checked(Config(**settings))


def _variables(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {item.name for item in fields(Config)} - {"region_settings", "webhooks"}
    known |= {f"{name}_file" for name in SECRET_FILES}
    found: dict[str, Any] = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX) or variable.removeprefix(PREFIX) in CLIENT_VARIABLES:
            continue
        name = variable.removeprefix(PREFIX).lower()
        _check_earlier(name, variable, PREFIX + RENAMED.get(name, "").upper())
        if name not in known:
            raise ConfigurationError(f"there is no setting {variable}; check its spelling")
        found[name] = value
    return found


def _check_earlier(name: str, said: str, now: str) -> None:
    """Raise for a setting of an earlier release, as it was `said`; `now` is its name today."""
    if name in RENAMED:
        raise ConfigurationError(
            f"{said} is now {now}: write that, and see that its value suits all bodies in memory, "
            "mail, the relay and exports among them"
        )
    if name in REMOVED:
        raise ConfigurationError(f"{said} is no setting any more: {REMOVED[name]}")


def _read_file(path: Path) -> tuple[dict[str, Any], dict[str, Region]]:
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}, {}
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    _check_exposure(path, values)
    values["webhooks"] = parse_webhooks(values.pop("webhook", {}))
    regions: dict[str, Region] = {}
    for name, table in values.pop("region", {}).items():
        if name not in REGIONS or not set(table) <= {"objects", "custodian", "custodian_before"}:
            raise ConfigurationError(f"{path}: [region.{name}] is not a region's table")
        regions[name] = Region(**table)
    return values, regions


def _check_exposure(path: Path, values: Mapping[str, Any]) -> None:
    """Raise where the file holds a secret that others may read."""
    holds = sorted(SECRETS & set(values))
    for name in ("database", "database_owner"):
        address = values.get(name, "")
        if isinstance(address, str) and shown_address(address) != address:
            holds.append(name)
    if not holds:
        return
    try:
        check_owner_only(path, path.stat())
    except ExposedError as error:
        raise ConfigurationError(f"{error} ({', '.join(holds)})") from None


def _read_secret(path: Path) -> str:
    try:
        return read_owner_only(path)
    except ExposedError as error:
        raise ConfigurationError(str(error)) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigurationError(f"the secret {path} cannot be read: {reason}") from None


#: What is said of a value that is none.
_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def _convert(name: str, kind: Any, value: Any) -> Any:
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[str(value).lower()]
        if kind in (int, float):
            return kind(value)
        if kind is str:
            return str(value)
    except (ValueError, KeyError):
        raise ConfigurationError(f"{name} is {value!r}, which is not {_KINDS[kind]}") from None
    items = value.split(",") if isinstance(value, str) else value
    return tuple(str(item).strip() for item in items if str(item).strip())


def _checked(config: Config) -> Config:
    unknown = [region for region in config.regions if region not in REGIONS]
    if unknown or not config.regions:
        raise ConfigurationError(f"regions must be some of {', '.join(REGIONS)}")
    if config.located and config.located not in REGIONS:
        raise ConfigurationError(f"located must be one of {', '.join(REGIONS)}")
    if config.fax_other_region and config.fax_other_region not in config.regions:
        raise ConfigurationError(f"fax_other_region must be one of {', '.join(config.regions)}")
    for witness in config.witnesses:
        try:
            CosignatureVerifier(witness)
        except IntegrityError:
            raise ConfigurationError(
                f"{witness} is no witness's public key; `portvault log witness` prints its own"
            ) from None
    if not 0 <= config.port <= 65535:
        raise ConfigurationError("port must be between 0 and 65535")
    for item in fields(config):
        positive = item.name.endswith(("_seconds", "_max", "_min", "_days")) and item.name != (
            "reversal_grace_seconds"
        )
        value = getattr(config, item.name)
        if (positive and value <= 0) or (item.name == "reversal_grace_seconds" and value < 0):
            raise ConfigurationError(f"{item.name} must be more than zero")
    if config.oidc_issuer and not (config.public_url and config.oidc_client_id):
        raise ConfigurationError("oidc_issuer needs public_url and oidc_client_id beside it")
    if len({config.objects_uri(region) for region in config.regions}) < len(config.regions):
        raise ConfigurationError("objects must give each region its own bucket; use {region}")
    return config


def _without_query(url: str) -> str:
    """Return an endpoint's address; what comes after its path may be a key of the endpoint's."""
    place, found, _ = url.partition("?")
    return f"{place}?{HIDDEN}" if found else place


def _without_nothing(region: Region) -> dict[str, str]:
    pairs = {
        "objects": region.objects,
        "custodian": region.custodian,
        "custodian_before": region.custodian_before,
    }
    return {name: value for name, value in pairs.items() if value}
