"""Configuration: read once, checked whole, shown without secrets."""

import os
import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from keys.ground.secret_files import ExposedError, check_owner_only
from vault.config.settings import SECRET_FILES, load_config
from vault.errors import ConfigurationError


def test_defaults_need_nothing(tmp_path: Path) -> None:
    """An empty environment gives a vault with embedded parts, keys outside the data."""
    config = load_config({"PORTVAULT_HOME": str(tmp_path / "vault")})
    assert config.database == "embedded:"
    assert config.host == "127.0.0.1"
    assert config.objects_uri("uk") == f"dir:{tmp_path}/vault/objects/uk"
    assert config.custodian_uri("uk") == f"file:{tmp_path}/vault-keys"
    assert config.home not in config.signing_key_path.parents


def test_variables_stand_over_the_file(tmp_path: Path) -> None:
    """The file sets, the environment wins, and a region may have its own parts."""
    (tmp_path / "portvault.toml").write_text(
        'port = 1\nregions = ["uk"]\nworker = false\n'
        '[region.uk]\nobjects = "s3+https://s3.example/one"\n'
    )
    config = load_config({"PORTVAULT_HOME": str(tmp_path), "PORTVAULT_PORT": "2"})
    assert (config.port, config.worker, config.regions) == (2, False, ("uk",))
    assert config.objects_uri("uk") == "s3+https://s3.example/one"


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("PORTVAULT_PROT", "1", "spelling"),
        ("PORTVAULT_PORT", "many", "not a whole number"),
        ("PORTVAULT_PORT", "70000", "65535"),
        ("PORTVAULT_REGIONS", "uk,mars", "regions"),
        ("PORTVAULT_REGIONS", "", "regions"),
        ("PORTVAULT_WORKER", "perhaps", "not true or false"),
        ("PORTVAULT_SEAL_INTERVAL_SECONDS", "0", "more than zero"),
        ("PORTVAULT_OBJECTS", "dir:/same", "{region}"),
        ("PORTVAULT_S3_SECRET_KEY_FILE", "/does/not/exist", "cannot be read"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, name: str, value: str, says: str) -> None:
    """A mistyped name or value stops the start."""
    with pytest.raises(ConfigurationError, match=says):
        load_config({"PORTVAULT_HOME": str(tmp_path), name: value})


@pytest.mark.parametrize("text", ["prot = 1", "port =", "[region.mars]", "[region.uk]\nx = 1"])
def test_a_bad_file_is_refused(tmp_path: Path, text: str) -> None:
    """An unknown name or a broken file stops the start."""
    (tmp_path / "portvault.toml").write_text(text)
    with pytest.raises(ConfigurationError):
        load_config({"PORTVAULT_HOME": str(tmp_path)})


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    """Neither the listing nor the repr of the configuration holds a secret."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("hunter2\n")
    config = load_config(
        {
            "PORTVAULT_HOME": str(tmp_path),
            "PORTVAULT_S3_SECRET_KEY_FILE": str(secret),
            "PORTVAULT_DATABASE": "postgresql://vault:hunter2@db/x",
        }
    )
    assert config.s3_secret_key == "hunter2"
    assert "hunter2" not in repr(config.shown())
    assert "hunter2" not in repr(config)


@pytest.mark.parametrize("days, taken", [("1", True), ("0", False)])
def test_the_index_of_numbers_has_a_key_for_a_day_at_least(
    tmp_path: Path, days: str, taken: bool
) -> None:
    """One day is a time to replace a key after; none is not."""
    environment = {"PORTVAULT_HOME": str(tmp_path), "PORTVAULT_NUMBER_INDEX_DAYS": days}
    if taken:
        assert load_config(environment).number_index_days == 1
    else:
        with pytest.raises(ConfigurationError, match="number_index_days must be more than zero"):
            load_config(environment)


def test_a_setting_that_was_renamed_says_its_new_name(tmp_path: Path) -> None:
    """Whoever set the account of faxes is told what counts now, in the file and by a variable."""
    home = {"PORTVAULT_HOME": str(tmp_path)}
    with pytest.raises(ConfigurationError, match="PORTVAULT_INTAKE_MEMORY_BYTES_MAX"):
        load_config({**home, "PORTVAULT_FAX_MEMORY_BYTES_MAX": "1000"})
    (tmp_path / "portvault.toml").write_text("fax_memory_bytes_max = 1000")
    with pytest.raises(ConfigurationError, match="is now intake_memory_bytes_max"):
        load_config(home)


SECRET = "hunter2"


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://u:hunter2@db/x",
        "postgres://u:hunter2@db:5432,other:5433/x?sslmode=require",
        "postgresql://u:p%40hunter2@db/x",
        "postgresql://u:a@hunter2@db/x",
        "postgresql://u:a/hunter2@db/x",
        "postgresql://u:1?hunter2@db/x",
        "postgresql://u:a#hunter2@db/x",
        "postgresql://:hunter2@/x",
        "postgresql://u@db/x?password=hunter2",
        "postgresql://db/x?user=u&pass%77ord=hunter2",
        "postgresql://db/x?password=a@hunter2",
        "postgresql://u@db/x?password=a%26hunter2&sslmode=require",
        "postgresql://db/x?sslpassword=hunter2",
        "postgresql://db/x?PASSWORD=hunter2",
        "postgresql://db/x?scram_client_key=hunter2&oauth_client_secret=hunter2",
        "postgresql://db/x?options=-c%20a.key%3Dhunter2",
        "host=db user=u password=hunter2",
        "host=db password = 'a \\' hunter2' user=u",
        "password='hunter2",
        "host=db password=a\\ hunter2",
        "sslpassword=hunter2 host=db",
        "psql://u:hunter2@db/x",
        "u:hunter2@db",
    ],
)
def test_no_form_of_an_address_shows_its_password(tmp_path: Path, address: str) -> None:
    """Wherever libpq takes a password from, `portvault config` shows none."""
    config = load_config({"PORTVAULT_HOME": str(tmp_path), "PORTVAULT_DATABASE": address})
    assert SECRET not in repr(config.shown())
    assert SECRET not in repr(config)


@pytest.mark.parametrize(
    "address, shown",
    [
        ("postgresql://u:hunter2@db:5432/x?sslmode=verify-full", "postgresql://u:***@db:5432/x"),
        ("postgresql://[::1]:5432/x?passfile=/run/pass", "postgresql://[::1]:5432/x?passfile="),
        ("postgresql:///x?host=/run/postgresql", "postgresql:///x?host=/run/postgresql"),
        ("host=db user=u password=hunter2 dbname=x", "host=db user=u *** dbname=x"),
        ("embedded:", "embedded:"),
    ],
)
def test_what_is_no_secret_is_shown(tmp_path: Path, address: str, shown: str) -> None:
    """Where the database is stays to be seen."""
    config = load_config({"PORTVAULT_HOME": str(tmp_path), "PORTVAULT_DATABASE": address})
    assert str(config.shown()["database"]).startswith(shown)


def _secret(path: Path, mode: int) -> Path:
    path.write_text("hunter2-and-a-good-deal-more")
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o644])
@pytest.mark.parametrize("name", SECRET_FILES)
def test_a_secret_that_others_may_read_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    """Each file of a secret is its owner's alone, or the start says which is not, and why."""
    variable = f"PORTVAULT_{name.upper()}_FILE"
    path = _secret(tmp_path / "secret", mode)
    environment = {"PORTVAULT_HOME": str(tmp_path), variable: str(path)}
    with pytest.raises(ConfigurationError, match=f"others may read .*chmod 600 {path}"):
        load_config(environment)
    path.chmod(0o400)
    assert "hunter2" in getattr(load_config(environment), name)


def test_a_secret_of_another_account_is_refused(tmp_path: Path) -> None:
    """What somebody else owns they can change; root's is taken by everybody who can read it."""
    path = _secret(tmp_path / "secret", 0o600)
    status = list(path.stat())
    for owner, good in ((os.geteuid(), True), (0, True), (os.geteuid() + 4711, False)):
        status[4] = owner
        if good:
            check_owner_only(path, os.stat_result(status))
        else:
            with pytest.raises(ExposedError, match="another account"):
                check_owner_only(path, os.stat_result(status))


@pytest.mark.parametrize(
    "text",
    ['s3_secret_key = "hunter2"', 'database = "postgresql://u:hunter2@db/x"'],
)
def test_a_file_of_settings_with_a_secret_is_one_itself(tmp_path: Path, text: str) -> None:
    """`portvault.toml` may be read by others unless a secret stands in it."""
    path = tmp_path / "portvault.toml"
    path.write_text(text)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_config({"PORTVAULT_HOME": str(tmp_path)})
    path.write_text("port = 1")
    assert load_config({"PORTVAULT_HOME": str(tmp_path)}).port == 1


def test_the_secret_of_a_webhook_is_looked_at_too(tmp_path: Path) -> None:
    """So is what lies beside the file of settings; the address shows no query."""
    path = _secret(tmp_path / "secret", 0o644)
    text = f'[webhook.x]\nurl = "https://x.example/a?key=hunter2"\nsecret_file = "{path}"'
    (tmp_path / "portvault.toml").write_text(text)
    with pytest.raises(ConfigurationError, match="others may read"):
        load_config({"PORTVAULT_HOME": str(tmp_path)})
    path.chmod(0o600)
    assert "hunter2" not in repr(load_config({"PORTVAULT_HOME": str(tmp_path)}).shown())


def test_a_container_trusts_single_proxies_only() -> None:
    """Neither the image nor the composition takes a whole network for the proxy."""
    root = Path(__file__).parents[2]
    for name in ("Dockerfile", "compose.yaml"):
        text = (root / name).read_text()
        (trusted,) = re.findall(r"PORTVAULT_TRUSTED_PROXIES[=:] ?([^\\\s#]+)", _code(text))
        for part in trusted.split(","):
            if not part.startswith("${"):
                assert ip_network(part).num_addresses == 1, name


def _code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("#"))
