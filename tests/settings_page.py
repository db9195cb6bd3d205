"""
`docs/settings.md`, written from the settings themselves: `.venv/bin/python -m tests.settings_page`.

Sentences are those of `portvault config`, defaults are the code's, and limits are what the vault
refuses when it is asked to start with a value beyond them.
"""

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vault.commands.config import sentences
from vault.config.settings import (
    CLIENT_VARIABLES,
    PREFIX,
    REMOVED,
    RENAMED,
    SECRET_FILES,
    SECRETS,
    Config,
    Region,
    load_config,
)
from vault.config.webhooks import Webhook
from vault.errors import ConfigurationError

PAGE = Path(__file__).parents[1] / "docs/settings.md"
TABLES = {"region_settings", "webhooks"}

HEAD = """# Settings

A setting is a line `name = value` in `$PORTVAULT_HOME/portvault.toml`, or the variable beside it, \
which wins. In a variable a list is written with commas. An unknown name stops the start, and so \
does a value beyond its limits. `portvault config` prints what is in force as the file that one \
would write. How to choose, and what belongs together, stands in [operations.md](operations.md).

This page is written by `.venv/bin/python -m tests.settings_page`; \
`tests/unit/test_settings_page.py` fails where it is not what the code says.

## All settings

| name and variable | what it says | unit | default | limits |
|---|---|---|---|---|
"""

#: What stands in `[region.NAME]`.
REGION_SAYS = {
    "objects": "Where this region's bytes lie, instead of `objects`.",
    "custodian": "Where this region's root keys lie, instead of `custodian`.",
    "custodian_before": "Where this region's root keys still lie while they are moved.",
}
#: What stands in `[webhook.NAME]`.
WEBHOOK_SAYS = {
    "url": "The endpoint's address: `https://`, or `http://` too with `allow_private`. Required.",
    "secret_file": "A file (mode 0600) with the signing secret: 24 characters or more. Required.",
    "allow_private": "`true` where the endpoint may be in a private network. Default: `false`.",
    "types": "The types of signals that it gets. Default: all.",
}
#: Variables that the service does not read.
CLIENT_SAYS = {
    "TOKEN": "The token of a command that calls the API.",
    "TOKEN_FILE": "A file that holds this token.",
    "SERVER": "The address of the vault that a command calls.",
    "VENV": "The environment of Python that `scripts/` use, instead of `.venv`.",
}
_SPANS = {"week": 604800, "day": 86400, "hour": 3600, "minute": 60}


def page() -> str:
    """Return the whole page."""
    with TemporaryDirectory() as home:
        rows = "".join(_rows(Path(home)))
    return "".join([HEAD, rows, *_tables()])


def _rows(home: Path) -> Iterator[str]:
    said = sentences()
    for item in sorted(fields(Config), key=lambda item: item.name):
        if item.name in TABLES:
            continue
        name, variable = item.name, PREFIX + item.name.upper()
        names = [f"`{name}`", f"`{variable}`"]
        if name in SECRET_FILES:
            names.append(f"`{variable}_FILE` (a file that holds it, mode 0600)")
        if name == "home":
            names, said[name] = [f"`{variable}`"], "Where the vault keeps everything but its keys."
        cells = ["<br>".join(names), said[name], _unit(name, item.type)]
        cells += [_default(name), "" if name == "home" else _limits(name, item.type, home)]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _tables() -> Iterator[str]:
    assert list(REGION_SAYS) == [item.name for item in fields(Region)]
    assert set(WEBHOOK_SAYS) == {item.name for item in fields(Webhook)} - {"secret"}
    assert set(CLIENT_SAYS) == CLIENT_VARIABLES
    for title, said, text in (
        ("`[region.NAME]`", REGION_SAYS, "In the file only: what is set for one region alone."),
        ("`[webhook.NAME]`", WEBHOOK_SAYS, "In the file only: an endpoint that gets signals."),
    ):
        yield f"\n## {title}\n{text}\n\n| name | what it says |\n|---|---|\n"
        yield from (f"| `{name}` | {sentence} |\n" for name, sentence in said.items())
    yield "\n## Variables of commands and scripts\n\n| variable | what it says |\n|---|---|\n"
    yield from (f"| `{PREFIX}{name}` | {sentence} |\n" for name, sentence in CLIENT_SAYS.items())
    yield "\n## Renamed\n\n| earlier name | name |\n|---|---|\n"
    yield from (f"| `{old}` | `{new}` |\n" for old, new in sorted(RENAMED.items()))
    yield "\n## Removed\n\n| earlier name | where it went |\n|---|---|\n"
    yield from (f"| `{name}` | {_sentence(said)} |\n" for name, said in sorted(REMOVED.items()))


def _sentence(said: str) -> str:
    return f"{said[0].upper()}{said[1:]}."


def _unit(name: str, kind: Any) -> str:
    for part, unit in (
        ("_bytes_per_second", "bytes a second"),
        ("_bytes_", "bytes"),
        ("_seconds", "seconds"),
        ("_days", "days"),
        ("_per_hour", "an hour"),
        ("_per_minute", "a minute"),
        ("refusals_per_address", "a minute"),
        ("_share_", "share of 1"),
    ):
        if part in name:
            return unit
    kinds = {bool: "true or false", str: "text", int: "number", Path: "path"}
    return kinds.get(kind, "list of texts")


def _default(name: str) -> str:
    config = Config(home=Path("$PORTVAULT_HOME"))
    value = getattr(config, name)
    if name == "home":
        return "`~/.portvault`"
    if name == "objects":
        value = config.objects_uri("{region}")
    elif name == "custodian":
        value = config.custodian_uri("{region}")
    if value in ("", ()):
        return "none"
    shown = json.dumps(list(value) if isinstance(value, tuple) else value)
    return f"`{shown}`{_in_words(name, value)}"


def _in_words(name: str, value: Any) -> str:
    if "_bytes_" in name and value % 1024 == 0 and value >= 1024 * 1024:
        return f" ({value // (1024 * 1024)} MiB)"
    for span, seconds in _SPANS.items():
        if "_seconds" in name and value > seconds * 0.99 and value % seconds == 0:
            number = int(value // seconds)
            return f" ({number} {span}{'s' if number > 1 else ''})"
    return ""


def refusal(name: str, value: str, home: Path) -> str | None:
    """Return what the vault says to a value for a setting, or None where it takes it."""
    try:
        load_config({"PORTVAULT_HOME": str(home), PREFIX + name.upper(): value})
    except ConfigurationError as error:
        return str(error)
    return None


def _limits(name: str, kind: Any, home: Path) -> str:
    if kind in (int, float):
        if refusal(name, "65536", home):
            return "0 to 65535"
        if refusal(name, "0", home):
            return "more than 0"
        return "0 or more" if refusal(name, "-1", home) else "none"
    said = "" if kind is bool or name in SECRETS else refusal(name, "?", home) or ""
    return said.removeprefix(f"{name} ").replace("? is no witness's", "each is a witness's")


if __name__ == "__main__":
    PAGE.write_text(page())
