"""Custodians to test: a directory, several, sealed by a passphrase, and a real SoftHSM token."""

import os
import subprocess
from pathlib import Path

import pytest

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
PIN = "2468"


class Token:
    """A SoftHSM token in a directory of its own."""

    def __init__(self, place: Path) -> None:
        self.tokens, self.pin_file = place / "tokens", place / "pin"
        self.tokens.mkdir(parents=True)
        self.configuration = place / "softhsm2.conf"
        self.configuration.write_text(f"directories.tokendir = {self.tokens}\n")
        self.write_pin(PIN)

    def write_pin(self, pin: str) -> None:
        """Keep a PIN where the custodian reads it."""
        self.pin_file.touch(mode=0o600)
        self.pin_file.write_text(f"{pin}\n")

    def make(self) -> None:
        """Initialise the token."""
        options = ["--free", "--label", "portvault", "--pin", PIN, "--so-pin", "1357"]
        subprocess.run(
            ["softhsm2-util", "--init-token", *options],
            check=True,
            capture_output=True,
            env={**os.environ, "SOFTHSM2_CONF": str(self.configuration)},
        )

    @property
    def address(self) -> str:
        """Return the custodian's address."""
        return (
            f"pkcs11:token=portvault;object=portvault-{{region}}?module-path={MODULE}"
            f"&pin-source=file:{self.pin_file}"
        )


@pytest.fixture
def token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Token:
    """Make a token, which the SoftHSM library of this process finds."""
    made = Token(tmp_path / "softhsm")
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.configuration))
    made.make()
    return made


@pytest.fixture(params=["directory", "directories", "passphrase", "token", "transit", "moving"])
def custodian_address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of each kind of custodian in turn."""
    if request.param == "token":
        found: Token = request.getfixturevalue("token")
        return found.address
    if request.param == "transit":
        address: str = request.getfixturevalue("transit").address
        return address
    if request.param == "directories":
        return f"file:{tmp_path}/one,{tmp_path}/two,{tmp_path}/three"
    if request.param == "passphrase":
        secret = tmp_path / "passphrase"
        secret.touch(mode=0o600)
        secret.write_text("correct horse battery staple\n")
        return f"file:{tmp_path}/keys?passphrase-file={secret}"
    return f"file:{tmp_path}/keys"
