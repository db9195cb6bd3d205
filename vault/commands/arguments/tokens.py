"""`portvault token`."""

from vault.commands.arguments.tree import Tree, count
from vault.domain.access import Role


def add_tokens(tree: Tree) -> None:
    """Add the commands of tokens."""
    tokens = tree.group(
        "token",
        "Make, list and revoke tokens.",
        "portvault token create --role porting --region uk --label desk-1",
    )
    create = tokens.command(
        "create",
        "operator.token_create",
        "Make a token and print it, once.",
        "portvault token create --role porting --region uk --label desk-1",
    )
    create.add_argument("--role", required=True, choices=[role.value for role in Role])
    create.add_argument("--region", required=True, action="append", help="one, or several: uk,sg")
    create.add_argument("--label", help="what it is for (the role)")
    create.add_argument("--days", type=count, help="how long it is good for (until revoked)")
    tokens.command("list", "operator.token_list", "List tokens.", "portvault token list")
    revoke = tokens.command(
        "revoke", "operator.token_revoke", "Revoke a token.", "portvault token revoke ID"
    )
    revoke.add_argument("token", metavar="ID")
