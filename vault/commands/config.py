"""
`portvault config`: every setting as the line of `portvault.toml` that makes it so.

What is read back is the same configuration. A secret is never printed: it is a comment that says
where to put it; and so is what only a variable can say.
"""

import argparse
import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from textwrap import wrap
from typing import Any

from vault.commands.output import show
from vault.commands.parser import SUMMARIES, Tree
from vault.config.addresses import shown_address
from vault.config.settings import PREFIX, SECRET_FILES, SECRETS, Config, Region, load_config
from vault.config.webhooks import Webhook

WIDTH = 98
_FIELD = re.compile(r"    (\w+): [^=]+ = ")
_TABLES = frozenset({"region_settings", "webhooks"})


async def run_config(args: argparse.Namespace) -> None:
    """Show every setting."""
    config = load_config()
    show(config.shown(), toml_text(config).rstrip("\n"), as_json=args.json, exact=True)


def toml_text(config: Config) -> str:
    """Return the settings, sorted, as TOML that makes this configuration, each with a sentence."""
    said, lines = sentences(), list[str]()
    for name in sorted(item.name for item in fields(Config)):
        if name not in _TABLES:
            lines += [*(f"# {line}" for line in wrap(said[name], WIDTH)), _line(config, name), ""]
    for name, region in sorted(config.region_settings.items()):
        lines += _region(name, region)
    for name, webhook in sorted(config.webhooks.items()):
        lines += _webhook(name, webhook)
    return "\n".join(lines)


def sentences() -> dict[str, str]:
    """Return what each setting is for: the comment above it, or above its group."""
    found: dict[str, str] = {}
    for kind in reversed(Config.__mro__[:-1]):
        comment, ended = list[str](), False
        for line in inspect.getsource(kind).splitlines():
            if line.startswith("    #: "):
                comment = [*([] if ended else comment), line[7:]]
                ended = False
            elif named := _FIELD.match(line):
                found[named[1]], ended = " ".join(comment), True
    return found


def _line(config: Config, name: str) -> str:
    value: Any = getattr(config, name)
    variable = f"{PREFIX}{name.upper()}"
    if name == "home":
        return f"# {variable}={value}  (a variable alone says where this file is)"
    if name in SECRETS or (name in SECRET_FILES and shown_address(str(value)) != value):
        state = "is set, and not shown" if value else "is not set"
        return f"# {name} {state}: its file is named in {variable}_FILE"
    return f"{name} = {_value(value)}"


def _value(value: Any) -> str:
    # A JSON string without surrogates is a basic string of TOML.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def _region(name: str, region: Region) -> Iterator[str]:
    yield f"[region.{name}]"
    for item in fields(region):
        if (value := getattr(region, item.name)) is not None:
            yield f"{item.name} = {_value(value)}"
    yield ""


def _webhook(name: str, webhook: Webhook) -> Iterator[str]:
    place, query, _ = webhook.url.partition("?")
    yield f"[webhook.{_value(name)}]"
    if query:
        yield "# What comes after the ? of this address may be a key, and is not shown."
    yield f"{'# ' if query else ''}url = {_value(place + query)}"
    yield f"secret_file = {_value(webhook.secret_file)}"
    yield f"allow_private = {_value(webhook.allow_private)}"
    yield f"types = {_value(webhook.types)}"
    yield ""


def add(tree: Tree) -> None:
    """Add the command `config`."""
    tree.command(
        "config",
        run_config,
        SUMMARIES["config"],
        "portvault config",
    )
