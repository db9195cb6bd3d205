"""`portvault put`, `get`, `show`, `shred`, `certificate`."""

from pathlib import Path

from vault.commands.arguments.tree import Tree, identity, kind, reason
from vault.domain.access import Purpose
from vault.domain.certificates import SHRED_REASONS
from vault.domain.documents import Ground, Kind


def add_documents(tree: Tree) -> None:
    """Add the commands of documents."""
    put = tree.command(
        "put",
        "content.put",
        "Upload documents, and print the id of each; a file that fails stops no other.",
        "portvault put scan.jpg --order ID --kind passport",
    )
    put.add_argument("file", type=Path, nargs="+", metavar="FILE")
    put.add_argument("--order", type=identity, required=True)
    put.add_argument("--kind", type=kind, required=True, help=", ".join(Kind))
    put.add_argument("--digest", action="store_true", help="send Content-Digest (SHA-256)")
    put.add_argument(
        "--again",
        action="store_true",
        help="keep a file anew that was put before; without it the same file, name, order and kind "
        "are one document for a day, so a run that was cut is started again as it was",
    )
    get = tree.command(
        "get",
        "content.get",
        "Read a document, and say why.",
        "portvault get ID --purpose verify-identity -o scan.jpg",
    )
    get.add_argument("document", type=identity, metavar="DOCUMENT")
    get.add_argument(
        "--purpose",
        required=True,
        metavar="PURPOSE",
        choices=[purpose.value for purpose in Purpose],
        help=", ".join(Purpose),
    )
    get.add_argument("--reference", help="the case, where the purpose needs one")
    get.add_argument(
        "--approval", type=identity, help="the approved disclosure, where the role needs one"
    )
    get.add_argument(
        "-o", "--output", metavar="FILE", help="- for standard output, never a terminal"
    )
    get.add_argument(
        "--receipt",
        type=Path,
        metavar="FILE",
        help="keep what proves this reading recorded",
    )
    show = tree.command(
        "show", "client.document_show", "Show why a document is here.", "portvault show ID"
    )
    show.add_argument("document", type=identity, metavar="DOCUMENT")
    shred = tree.command(
        "shred",
        "client.document_shred",
        "Put a document beyond use, for ever.",
        "portvault shred ID --reason withdrawn",
    )
    shred.add_argument("document", type=identity, metavar="DOCUMENT")
    shred.add_argument(
        "--reason",
        type=reason(SHRED_REASONS),
        required=True,
        help=f"a case's number, or one of {', '.join(SHRED_REASONS)}; it is kept for ever",
    )
    shred.add_argument(
        "--ground",
        metavar="GROUND",
        choices=[ground.value for ground in Ground],
        help=f"{', '.join(Ground)} ({Ground.NOT_NEEDED})",
    )
    shred.add_argument(
        "--approval",
        type=identity,
        metavar="ID",
        help="of document.mistake, with --ground sent-by-mistake",
    )
    shred.add_argument(
        "--replaced-by", type=identity, metavar="ID", help="the right document of the same order"
    )
    correct = tree.command(
        "correct",
        "client.document_correct",
        "Say that a document is of another kind; its retention is computed anew.",
        "portvault correct ID --kind passport",
    )
    correct.add_argument("document", type=identity, metavar="DOCUMENT")
    correct.add_argument("--kind", type=kind, required=True, help=", ".join(Kind))
    correct.add_argument(
        "--approval",
        type=identity,
        metavar="ID",
        help="of document.correct, where the floor becomes lower",
    )
    certificate = tree.command(
        "certificate",
        "client.certificate",
        "Print the signed certificate of a document's destruction.",
        "portvault certificate ID",
    )
    certificate.add_argument("document", type=identity, metavar="DOCUMENT")
