"""Every list says in a sentence that it is empty; for a program it is an empty list."""

from tests.command_line import token_of
from tests.fixtures_process import VaultProcess
from tests.unit.test_cli_help import COMMANDS
from vault.commands.output import NOTHING

#: Each command that lists, the role that may, and what it needs to be told to find nothing.
LISTS = {
    "order list": ("porting", ()),
    "order find": ("porting", ("--region", "uk", "--number", "+442079460123")),
    "fax list": ("fax-gateway", ()),
    "retention plan": ("dpo", ("--until", "2100-01-01")),
    "retention instructions": ("compliance", ()),
    "hold list": ("compliance", ()),
    "signal list": ("admin", ()),
    "approval list": ("dpo", ()),
    "break-glass list": ("compliance", ()),
    "token list": ("", ()),
    "log search": ("compliance", ("--action", "token.revoke")),
}
#: Commands that list under another name. `log tail` is not among them: whoever may ask has a token,
#: whose making is a record.
OTHERS = {"order find", "retention plan", "retention instructions", "log search"}


async def test_an_empty_list_is_a_sentence(vault_process: VaultProcess) -> None:
    """On an empty vault no list is a bare heading, and with `--json` each is an empty one."""
    vault = vault_process
    assert {name for name in COMMANDS if name.endswith(" list")} | OTHERS == set(LISTS)
    tokens: dict[str, dict[str, str]] = {"": {}}
    # The one that the operator asks comes first, while there is no token to list.
    for name, (role, needed) in sorted(LISTS.items(), key=lambda item: item[1][0]):
        if role not in tokens:
            tokens[role] = await token_of(vault, role)
        line = (*name.split(), *needed)
        status, said, beside = await vault.run(*line, **tokens[role])
        assert (status, said, beside) == (0, f"{NOTHING}\n", ""), name
        assert await vault.json(*line, **tokens[role]) == [], name
