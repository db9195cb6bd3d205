"""No private name of a library carries anything: only what a library promises outlives its next."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
OURS = {"vault", "keys"}
#: What begins with an underscore and is public all the same, and why.
EXCEPTIONS: dict[str, str] = {
    "vault/sandbox/child.py: os._exit": "Python documents it: a child ends without cleaning up",
    **dict.fromkeys(
        (
            "vault/mail/listener.py: _BoundedSMTP inherits _call_handler_hook",
            "vault/mail/listener.py: _BoundedSMTP inherits _reader",
            "vault/mail/listener.py: _BoundedSMTP inherits _reset_timeout",
            "vault/mail/listener.py: _BoundedSMTP inherits _set_post_data_state",
            "vault/mail/listener.py: _BoundedSMTP inherits _timeout_handle",
            "vault/mail/listener.py: _BoundedSMTP inherits _writer",
            "vault/mail/listener.py: self._call_handler_hook",
            "vault/mail/listener.py: self._reader",
            "vault/mail/listener.py: self._reset_timeout",
            "vault/mail/listener.py: self._set_post_data_state",
            "vault/mail/listener.py: self._timeout_handle",
            "vault/mail/listener.py: self._writer",
        ),
        "aiosmtpd reads a mail without bounds of memory and time, and has no public way to read it "
        "otherwise; test_fax_listener.py sends mails through every one of these",
    ),
    **dict.fromkeys(
        (
            "vault/web/listening.py: Connection inherits _loop",
            "vault/web/listening.py: Connection inherits _messages",
            "vault/web/listening.py: Connection inherits _waiter",
            "vault/web/listening.py: self._messages",
        ),
        "aiohttp has no limit for the time a head may take, and does not say whether a connection "
        "rests; test_hostile_requests.py holds connections open in each of these ways",
    ),
}


def trees() -> dict[str, ast.Module]:
    """Return every module of the vault and of the keys, by its path."""
    paths = (path for package in sorted(OURS) for path in (ROOT / package).rglob("*.py"))
    return {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in paths}


def is_private(name: str) -> bool:
    """Whether a name begins with an underscore and is none of Python's own (`__name__`)."""
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def imported_from_outside(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield the names that a module imports from outside: as it calls them, and as they are."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] not in OURS:
                    yield alias.asname or alias.name.partition(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] not in OURS:
            for alias in node.names:
                yield alias.asname or alias.name, f"{node.module}.{alias.name}"


def defined(tree: ast.AST) -> set[str]:
    """Return every private name that a tree gives to something of its own."""
    found = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return {name for name in found if is_private(name)}


def root_of(node: ast.expr) -> str | None:
    """Return the name that a chain of attributes and calls begins with."""
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute | ast.Subscript | ast.Await):
            node = node.value
        elif isinstance(node, ast.Call):
            node = node.func
        else:
            return None
    return node.id


def private_uses(trees: dict[str, ast.Module]) -> Iterator[str]:
    """Yield each use of a private name that is a library's, with its place."""
    ours = set[str]().union(*map(defined, trees.values()))
    for place, tree in trees.items():
        outside = dict(imported_from_outside(tree))
        for name, whole in outside.items():
            if any(map(is_private, whole.split("."))):
                yield f"{place}: imports {whole} as {name}"
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                # What begins at a library's name is its own, whoever else has such a name.
                if root_of(node.value) in outside or node.attr not in ours:
                    yield f"{place}: {ast.unparse(node)}"
            elif isinstance(node, ast.ClassDef) and _inherits(node, outside):
                yield from (f"{place}: {use}" for use in _borrowed(node))
            elif isinstance(node, ast.Call) and _asks_by_name(node):
                yield f"{place}: {ast.unparse(node)}"


def _asks_by_name(node: ast.Call) -> bool:
    """Whether this is `getattr` and the like, with a private name in quotes."""
    return (
        root_of(node.func) in {"getattr", "hasattr", "setattr"}
        and isinstance(node.args[1], ast.Constant)
        and is_private(str(node.args[1].value))
    )


def _inherits(node: ast.ClassDef, outside: dict[str, str]) -> bool:
    return any(root_of(base) in outside for base in node.bases)


def _borrowed(node: ast.ClassDef) -> Iterator[str]:
    """Yield what a class takes from a library's class that it inherits from."""
    own = defined(node)
    for item in ast.walk(node):
        if (
            isinstance(item, ast.Attribute)
            and is_private(item.attr)
            and item.attr not in own
            and root_of(item.value) in {"self", "cls", "super"}
        ):
            yield f"{node.name} inherits {item.attr}"


def test_no_private_name_of_a_library_is_used() -> None:
    """What begins with an underscore may change in any release: nothing of ours leans on it."""
    assert sorted(set(private_uses(trees())) - set(EXCEPTIONS)) == []


def test_every_exception_is_still_one() -> None:
    """An exception that nothing needs any more goes, and each has its reason."""
    assert set(EXCEPTIONS) <= set(private_uses(trees()))
    assert all(EXCEPTIONS.values())


def test_each_way_to_a_private_name_is_seen() -> None:
    """The module's own, an object's, an inherited one and one that is imported."""
    text = """
import minio
from minio import Minio, _hidden
class Client(Minio):
    def __init__(self):
        self._mine = 1
    def look(self):
        return self._mine, self._list_multipart_uploads()
minio._region
Minio("host")._base_url
getattr(minio, "_region")
"""
    found = set(private_uses({"m.py": ast.parse(text)}))
    assert found == {
        "m.py: imports minio._hidden as _hidden",
        "m.py: Client inherits _list_multipart_uploads",
        "m.py: self._list_multipart_uploads",
        "m.py: minio._region",
        "m.py: Minio('host')._base_url",
        "m.py: getattr(minio, '_region')",
    }
