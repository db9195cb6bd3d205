"""`portvault config` prints the file that one would write."""

import tomllib
from dataclasses import fields
from pathlib import Path

from vault.commands.config import sentences, toml_text
from vault.config.settings import SECRETS, Config, load_config

WRITTEN = """
regions = ["uk", "sg"]
port = 9000
worker = false
database = "postgresql://portvault@db/portvault"
objects = "s3+https://s3.example/portvault-{region}"
s3_access_key = 'quo"ted\\'
expire_share_max = 0.25
oidc_roles = ["Desk Wellington=porting", "Büro=dpo"]

[region.uk]
custodian = "file:/srv/keys"

[webhook.porting]
url = "https://porting.example/vault"
secret_file = "SECRET"
types = ["document.shredded"]

[webhook."with key"]
url = "https://keyed.example/?key=hidden-in-the-address"
secret_file = "SECRET"
"""


def configured(tmp_path: Path, text: str, **variables: str) -> Config:
    """Return the configuration that a file and variables make."""
    tmp_path.mkdir(exist_ok=True, mode=0o700)
    (tmp_path / "portvault.toml").write_text(text)
    return load_config({"PORTVAULT_HOME": str(tmp_path), **variables})


def test_what_is_printed_is_the_same_when_it_is_read_back(tmp_path: Path) -> None:
    """File, tables and variables become one file; only secrets are left for their own places."""
    secret = tmp_path / "secret"
    secret.write_text("whsec_0123456789012345678901234567890")
    secret.chmod(0o600)
    secrets = {
        "PORTVAULT_S3_SECRET_KEY": "s3-is-secret",
        "PORTVAULT_TWILIO_AUTH_TOKEN": "twilio-is-secret",
        "PORTVAULT_DATABASE_OWNER": "postgresql://owner:owner-is-secret@db/portvault",
    }
    text = WRITTEN.replace("SECRET", str(secret))
    home = tmp_path / "home"
    config = configured(home, text, PORTVAULT_HOST="127.0.0.2", **secrets)
    printed = toml_text(config)
    for part in ("is-secret", "whsec", "hidden-in-the-address"):
        assert part not in printed
    again = printed.replace('# url = "https://keyed.example/?"', 'url = "https://keyed.example/?"')
    back = configured(home, again.replace("/?", "/?key=hidden-in-the-address"), **secrets)
    assert back == config


def test_the_defaults_are_the_same_when_they_are_read_back(tmp_path: Path) -> None:
    """Every setting stands there, sorted, below a sentence of its own or of its group."""
    config = configured(tmp_path, "")
    printed = toml_text(config)
    assert configured(tmp_path, printed) == config
    names = list(tomllib.loads(printed))
    assert names == sorted(names)
    elsewhere = {"home", "region_settings", "webhooks", *SECRETS}
    assert {*names, *elsewhere} == {item.name for item in fields(Config)}
    lines = printed.splitlines()
    for name in names:
        above = lines[next(n for n, line in enumerate(lines) if line.startswith(f"{name} =")) - 1]
        assert above.startswith("# "), name
        assert above.endswith((".", "`")), name
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 100


def test_each_setting_has_a_sentence() -> None:
    """None is without one, and none has that of another."""
    said = sentences()
    assert set(said) >= {item.name for item in fields(Config)} - {"home", "region_settings"}
    assert len({text for text in said.values() if text}) == sum(map(bool, said.values()))
    assert all(said[name] for name in said if name not in {"home", "region_settings"})
    assert set(said) >= SECRETS
