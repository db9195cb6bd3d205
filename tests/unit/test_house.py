"""The house itself: what the wheel carries, what is pinned, and the rules' own reasons."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from dataclasses import fields
from pathlib import Path

import pytest

from vault.config.settings import REMOVED, RENAMED, Config
from vault.domain.access import Role

ROOT = Path(__file__).parents[2]
PAGE_NAMES = (
    *("api", "attacks", "changelog", "contributing", "house", "operations", "settings", "speed"),
)
LOCKS = ("requirements.lock", "requirements-dev.lock")
#: And what no test needs.
ALL_LOCKS = (*LOCKS, "requirements-mutate.lock")
PAGES = ("README.md", *(f"docs/{name}.md" for name in PAGE_NAMES))
SCRIPTS = tuple(
    f"scripts/{name}" for name in ("run", "demo", "drill", "test", "check", "bench", "mutate")
)
PIN = re.compile(r"[a-z0-9-]+==[\w.!+]+")


def pins(lock):
    """Return the pinned `name==version` of each entry with the lines that follow it."""
    entries: dict[str, list[str]] = {}
    entry = None
    for line in (ROOT / lock).read_text().splitlines():
        if found := PIN.match(line):
            entry = entries.setdefault(found.group(), [])
        if entry is not None:
            entry.append(line)
    return entries


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build the wheel as a mirror without network would, and list what is in it."""
    target = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    command += ["--no-build-isolation", "--wheel-dir", str(target), str(ROOT)]
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    subprocess.run(command, check=True, env=environment, stdin=subprocess.DEVNULL)
    (built,) = target.glob("portvault-*.whl")
    with zipfile.ZipFile(built) as archive:
        return set(archive.namelist())


def committed(directory, pattern):
    return {str(path.relative_to(ROOT)) for path in (ROOT / directory).rglob(pattern)}


def test_the_wheel_carries_both_packages(wheel):
    """Every module of `vault` and `keys` but the trials is in the wheel; none of the tests is."""
    trials = committed("vault/trials", "*")
    assert {"vault/__init__.py", "keys/__init__.py"} <= wheel
    assert committed("vault", "*.py") | committed("keys", "*.py") <= wheel | trials
    assert trials & committed("vault", "*.py")
    assert not trials & wheel
    assert {name.split("/")[0] for name in wheel} == {
        "vault",
        "keys",
        "portvault-0.1.0.dist-info",
    }


def test_the_wheel_carries_migrations_policy_and_templates(wheel):
    """What is not Python but needed at run time is in the wheel too."""
    migrations = {f"vault/_migrations/{path.name}" for path in (ROOT / "migrations").iterdir()}
    assert migrations
    assert migrations <= wheel
    policy = committed("vault/policy", "*.toml")
    assert policy
    assert policy <= wheel
    assert committed("vault/web", "*.html") | committed("vault/web", "*.css") <= wheel


@pytest.mark.parametrize("lock", ALL_LOCKS)
def test_a_lock_pins_everything_with_hashes(lock):
    """Each entry of a lock file is one version and at least one SHA-256."""
    entries = pins(lock)
    assert len(entries) > 10
    for name, lines in entries.items():
        assert any("--hash=sha256:" in line for line in lines), name


@pytest.mark.parametrize("lock", ALL_LOCKS)
def test_a_lock_names_no_place(lock):
    """A lock file names no index, host, address or path, so that any mirror serves it."""
    entry = re.compile(
        rf"{PIN.pattern}( ; [a-z_]+ [=!]= '\w+'( or [a-z_]+ == '\w+')*)? \\"
        r"|    --hash=sha256:[0-9a-f]{64}( \\)?"
        r"|#.*"
    )
    for line in (ROOT / lock).read_text().splitlines():
        assert entry.fullmatch(line), line
        assert "://" not in line
        assert not re.search(r"index-url|find-links|\.(org|com|net)\b", line), line


def test_the_tests_run_on_what_is_shipped():
    """Whatever the vault runs with has the same version in the tests' environment."""
    runtime, development = (set(pins(lock)) for lock in LOCKS)
    assert runtime < development


def test_every_dependency_is_pinned():
    """Every dependency of `pyproject.toml`, and of each extra, stands in the development lock."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        wanted += extra
    pinned = {pin.partition("==")[0] for pin in pins("requirements-dev.lock")}
    assert {re.split(r"[^\w-]", name)[0] for name in wanted} <= pinned


@pytest.mark.parametrize("script", [*SCRIPTS, ".ci/run"])
def test_a_script_can_be_run(script):
    """Each script is executable, names its interpreter, and is valid to it."""
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/usr/bin/env bash\n")
    subprocess.run(["bash", "-n", str(path)], check=True, stdin=subprocess.DEVNULL)


def test_every_lint_exception_has_its_reason():
    """Above every group of ignored rules in `pyproject.toml` stands a comment that says why."""
    explained = False
    groups = 0
    text = (ROOT / "pyproject.toml").read_text()
    section = text[text.index("[tool.ruff.lint]") : text.index("[tool.ruff.lint.pydocstyle]")]
    for line in section.splitlines():
        if line.lstrip().startswith("#"):
            explained = True
        elif re.search(r'"[A-Z]+\d*"', line) and not line.startswith("select"):
            assert explained, line
            groups += 1
            explained = False
        elif not line.strip():
            explained = False
    assert groups > 10


def ours() -> set[str]:
    """Return every file of Python that is ours, the tests too."""
    return {name for place in ("vault", "keys", "tests") for name in committed(place, "*.py")}


def test_a_silenced_line_names_its_rule():
    """No `noqa` and no `type: ignore` without the rule it silences."""
    bare = re.compile(r"# (?:noqa(?!: [A-Z]+\d)|type: ignore(?!\[))")
    assert not [name for name in ours() if bare.search((ROOT / name).read_text())]


def test_a_silenced_line_says_why():
    """Behind the rule that a line of ours silences stands the reason."""
    silent = re.compile(r"(?m)# (noqa: [A-Z]+\d+(, [A-Z]+\d+)*|type: ignore\[[a-z, -]+\])\s*$")
    assert not [name for name in ours() if silent.search((ROOT / name).read_text())]


def test_every_test_has_its_sentence():
    """Each test says in its docstring what holds."""
    silent = [
        f"{name}: {node.name}"
        for name in sorted(committed("tests", "test_*.py"))
        for node in ast.walk(ast.parse((ROOT / name).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []


def test_names_say_what_they_hold():
    """No file is called after what it is for nobody in particular."""
    vague = {"utils", "util", "helpers", "common", "manager", "misc", "ports"}
    files = {Path(name) for package in ("vault", "keys") for name in committed(package, "*.py")}
    assert not [path for path in files if path.stem in vague]
    assert not (ROOT / "tests/keys").exists()
    assert not (ROOT / "tests/vault").exists()


@pytest.mark.parametrize("package", ["vault", "keys"])
def test_files_stay_short(package):
    """A file that cannot be read in one sitting is two files."""
    lengths = {
        name: len((ROOT / name).read_text().splitlines()) for name in committed(package, "*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > 500} == {}


@pytest.mark.parametrize("name", ["auditor", "certificate_auditor"])
def test_the_auditors_need_the_standard_library_and_cryptography(name):
    """Whatever else is imported, wherever in the file, an auditor could not take it away alone."""
    wanted = set[str]()
    for node in ast.walk(ast.parse((ROOT / "vault/audit" / f"{name}.py").read_text())):
        if isinstance(node, ast.Import):
            wanted |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            wanted.add(str(node.module).partition(".")[0])
    beside = {"auditor", "vault"} if name == "certificate_auditor" else set()
    assert wanted - set(sys.stdlib_module_names) - beside <= {"cryptography"}


def links(page):
    """Return the links of a page of documentation that lead into this repository."""
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


@pytest.mark.parametrize("page", ["README.md", *sorted(committed("docs", "*.md"))])
def test_the_documents_links_lead_somewhere(page):
    """Each link within the documents names a file, and a heading that is there."""
    for link in links(page):
        name, _, heading = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.is_file(), link
        titles = re.findall(r"(?m)^#+ (.+)$", target.read_text())
        known = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
        assert not heading or heading in known, link


def test_the_attacks_table_has_every_role():
    """Whoever adds a role says what a thief of its token can do."""
    text = (ROOT / "docs/attacks.md").read_text()
    rows = re.findall(r"(?m)^\| `([a-z-]+)` \| .+ \| .+ \| .+ \|$", text)
    assert rows == list(Role)


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_documents_name_are_there(page):
    """A module, a test or a policy that a document points at exists."""
    text = (ROOT / page).read_text()
    named = set(re.findall(r"`((?:vault|tests|keys|docs|migrations)/[\w/.-]+)`", text))
    assert not {path for path in named if not (ROOT / path).exists()}


@pytest.mark.parametrize("page", PAGES)
def test_the_settings_that_documents_name_are_there(page):
    """A word that looks like a setting, by its unit, is one."""
    text = (ROOT / page).read_text()
    units = "seconds|max|min|days"
    named = set(re.findall(rf"`(?!portvault_)([a-z]+(?:_[a-z]+)*_(?:{units}))`", text))
    assert named <= {item.name for item in fields(Config)} | set(RENAMED) | set(REMOVED)


def test_data_keys_are_written_and_built_by_keys_alone():
    """No module of the vault has SQL of its own that writes a wrap, or makes a `WrappedKey`."""
    made = re.compile(r"(into|update) data_key\b|\bWrappedKey\(")
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "vault").rglob("*.py")
        if made.search(path.read_text())
    ]
    # It reads the text of a backup's dump, not a row.
    assert found == ["vault/actions/repair.py"]
    embedding = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "vault").rglob("*.py")
        if "{kept_keys(" in path.read_text()
    ]
    assert sorted(embedding) == ["vault/sql/fax_intake.py", "vault/sql/intake.py"]
