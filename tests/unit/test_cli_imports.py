"""What a command loads: nothing that it does not use, since that is most of its time."""

import subprocess
import sys

import pytest

from vault.audit import auditor
from vault.commands import log

#: What serves, and what speaks to stores and providers that a vault may not have.
SERVER = {
    "vault.web",
    "vault.mail.listener",
    "vault.worker",
    "jinja2",
    "prometheus_client",
    "uvloop",
}
SERVER |= {"prometheus_client", "aiosmtpd", "authlib", "minio", "pikepdf", "pkcs11", "magic"}
DATABASE = {"vault.app", "asyncpg"}
HTTP = {"aiohttp"}
LIGHT = SERVER | DATABASE | HTTP | {"cryptography", "phonenumbers"}

LOADED = """
import sys
from contextlib import suppress
from vault.cli import main
if sys.argv[1] == "--help":
    with suppress(SystemExit):
        main(["--help"])
else:
    import importlib
    importlib.import_module(f"vault.commands.{sys.argv[1]}")
print("loaded", *sys.modules)
"""


def loaded(what: str) -> set[str]:
    """Return the modules that a fresh Python has after it loaded a command."""
    command = [sys.executable, "-c", LOADED, what]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.rpartition("loaded ")[2].split())


@pytest.mark.parametrize(
    "what, unused",
    [
        ("--help", LIGHT),
        ("config", SERVER | DATABASE | HTTP),
        ("tokens", SERVER | HTTP),
        ("keys", SERVER | HTTP),
        ("doctor", SERVER | HTTP),
        ("orders", SERVER | DATABASE),
        ("documents", SERVER | DATABASE),
        ("log", SERVER | DATABASE),
    ],
)
def test_a_command_loads_only_what_it_uses(what: str, unused: set[str]) -> None:
    """Help loads no library; the operator's commands no HTTP, a client's no database."""
    found = loaded(what)
    assert "argparse" in found
    assert {name for name in unused if name in found} == set()


def test_the_parser_says_what_the_auditor_does() -> None:
    """The default that the help has is the auditor's."""
    assert log.WAITING_SECONDS_MAX == auditor.WAITING_SECONDS_MAX
