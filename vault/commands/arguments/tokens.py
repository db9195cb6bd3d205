"""`portvault token`."""

from pathlib import Path

from vault.commands.arguments.tree import Tree, count, identity, several
from vault.domain.access import Role
from vault.domain.documents import Kind
from vault.domain.regions import REGIONS


def add_tokens(tree: Tree) -> None:
    """Add the commands of tokens."""
    tokens = tree.group(
        "token",
        "Make, list, rename and revoke tokens.",
        "portvault token create --role porting --region uk --label desk-1",
    )
    create = tokens.command(
        "create",
        "tokens.token_create",
        "Make a token and print it, once.",
        "portvault token create --role dpo --region uk --person staff-7 --label office",
    )
    create.add_argument("--role", required=True, choices=[role.value for role in Role])
    create.add_argument(
        "--region",
        type=several(REGIONS),
        required=True,
        action="append",
        help=f"one, or several: uk,sg; there are {', '.join(REGIONS)}",
    )
    create.add_argument("--customer", action="append", help="only these customers (all)")
    create.add_argument(
        "--kind",
        type=several(Kind),
        action="append",
        help=f"only these kinds of documents (all): {', '.join(Kind)}",
    )
    create.add_argument("--located", choices=REGIONS, help="where it is used (its only region)")
    create.add_argument(
        "--certificate", type=Path, metavar="FILE", help="taken with this client certificate only"
    )
    create.add_argument(
        "--person",
        help="who holds it: the provider's subject, or the id the console shows; nobody agrees to "
        "what they ask for themselves, and of tokens that you make only those that name two people "
        "are two people's",
    )
    create.add_argument("--label", help="what it is for (the role)")
    create.add_argument("--days", type=count, help="how long it is good for (until revoked)")
    tokens.command("list", "tokens.token_list", "List tokens.", "portvault token list")
    rename = tokens.command(
        "rename",
        "tokens.token_rename",
        "Give a token another label; what it did before keeps the one of then.",
        "portvault token rename ID desk-2",
    )
    rename.add_argument("token", type=identity, metavar="ID")
    rename.add_argument("label", metavar="LABEL")
    revoke = tokens.command(
        "revoke", "tokens.token_revoke", "Revoke a token.", "portvault token revoke ID"
    )
    revoke.add_argument("token", type=identity, metavar="ID")
