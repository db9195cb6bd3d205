"""Configuration: read once, checked whole, shown without secrets."""

from pathlib import Path

import pytest

from vault.config import load_config
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
        ("PORTVAULT_PORT", "many", "not int"),
        ("PORTVAULT_PORT", "70000", "65535"),
        ("PORTVAULT_REGIONS", "uk,mars", "regions"),
        ("PORTVAULT_REGIONS", "", "regions"),
        ("PORTVAULT_WORKER", "perhaps", "not bool"),
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
