"""Wires what faxes need beside the rest: their table, the sandbox, and who takes their mail."""

from vault.adapters.mailer import SmtpMailer
from vault.adapters.sandbox import SandboxedChildren
from vault.config import Config
from vault.domain.fax_mail import Routes, check_hosts, parse_routes


def load_routes(config: Config) -> Routes:
    """Read where faxes go by mail, from `faxes.toml` beside the data; without it none does."""
    own = config.home / "faxes.toml"
    routes = parse_routes(own.read_text(encoding="utf-8")) if own.exists() else Routes()
    return check_hosts(routes, config.fax_smtp)


def make_sandbox(config: Config) -> SandboxedChildren:
    """Return the sandbox, whose children start when they are needed."""
    return SandboxedChildren(
        processes=config.sandbox_processes_max,
        timeout_seconds=config.sandbox_timeout_seconds,
        memory_bytes=config.sandbox_memory_bytes_max,
    )


def make_mailer(config: Config) -> SmtpMailer:
    """Return who hands mail to its next hop."""
    return SmtpMailer(
        host=config.fax_smtp,
        sender=config.fax_mail_from,
        user=config.fax_smtp_user,
        password_file=config.fax_smtp_password_file,
        timeout_seconds=config.fax_mail_seconds_max,
    )
