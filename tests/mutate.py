"""
Mutants of the pure modules, and those that no unit test notices; run by `./scripts/mutate`.

cosmic-ray makes and runs the mutants: each differs from the module in one operator, number, word or
decorator. Of a module run the unit tests that import it, so a survivor may still be noticed by a
test of another floor. What survives deserves a test, or a sentence in docs/contributing.md.
"""

import argparse
import ast
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, WorkerOutcome, WorkResult

ROOT = Path(__file__).parents[1]
#: What is mutated where no file is named.
PURE = (
    "vault/domain/*.py",
    "keys/tree.py",
    "keys/wrap.py",
    "keys/segment.py",
    "keys/notes/*.py",
)
#: Unit tests that look at the whole tree, or start programs, and say nothing of one module.
OF_ALL = frozenset({"test_cli_help.py", "test_house.py", "test_glossary.py", "test_places.py"})
#: Type aliases and annotations are not run, and a docstring's neighbours neither.
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", "__pycache__", ".*_cache", "node_modules")


def unit_tests(module: str) -> list[str]:
    """Return the unit tests that import a module, given and returned by their paths."""
    package, _, name = module.removesuffix(".py").replace("/", ".").rpartition(".")
    wanted = re.compile(
        rf"^from {re.escape(package)}\.{name} import|^import {re.escape(package)}\.{name}\b"
        rf"|^from {re.escape(package)} import [^\n]*\b{name}\b",
        re.MULTILINE,
    )
    files = sorted((ROOT / "tests/unit").glob("test_*.py"))
    return [
        str(path.relative_to(ROOT))
        for path in files
        if path.name not in OF_ALL and wanted.search(path.read_text())
    ]


def annotations(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Yield where the annotations of a module begin and end, as (line, column) pairs."""
    for node in ast.walk(ast.parse(source)):
        for name in ("annotation", "returns"):
            found = getattr(node, name, None)
            if isinstance(found, ast.expr):
                assert found.end_lineno is not None
                assert found.end_col_offset is not None
                yield (found.lineno, found.col_offset), (found.end_lineno, found.end_col_offset)


def mutate(copy: Path, module: str, python: str, sample: int | None, seed: int) -> int:
    """Run the mutants of one module, print the survivors, and return how many there were."""
    tests = unit_tests(module)
    if not tests:
        print(f"{module}: no unit test imports it")
        return 0
    command = f"env PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {shlex.quote(python)} -P -m pytest -q -x "
    command += "--noconftest -p pytest_asyncio.plugin -p no:cacheprovider " + " ".join(tests)
    began = time.monotonic()
    subprocess.run(shlex.split(command), cwd=copy, check=True, stdout=subprocess.DEVNULL)
    limit = 10 + 5 * (time.monotonic() - began)

    session, config = copy / "mutants.sqlite", copy / "mutants.toml"
    session.unlink(missing_ok=True)
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = {limit:.1f}\n'
        f"excluded-modules = []\ntest-command = '''{command}'''\n"
        'distributor.name = "local"\n'
    )
    program = Path(sys.executable).with_name("cosmic-ray")
    subprocess.run([program, "init", config, session], cwd=copy, check=True)
    with use_db(session) as found:
        spots = list(annotations((ROOT / module).read_text()))
        items = {item.job_id: item.mutations[0] for item in found.work_items}
        wanted = sorted(
            (job for job, spec in items.items() if not _inside(spec, spots)),
            key=lambda job: (items[job].start_pos, items[job].operator_name, items[job].occurrence),
        )
        if sample is not None and sample < len(wanted):
            wanted = random.Random(seed).sample(wanted, sample)
        skipped = WorkResult(worker_outcome=WorkerOutcome.SKIPPED)
        found.set_multiple_results(items.keys() - set(wanted), skipped)
    subprocess.run([program, "exec", config, session], cwd=copy, check=True)
    with use_db(session) as found:
        results = [(items[job], result) for job, result in found.results]
    run = [result for _, result in results if result.worker_outcome != WorkerOutcome.SKIPPED]
    alive = [(spec, result) for spec, result in results if result.test_outcome == "survived"]
    print(f"{module}: {len(run)} of {len(items)} mutants, {len(alive)} survived", flush=True)
    for spec, result in sorted(alive, key=lambda pair: pair[0].start_pos):
        changed = [
            line for line in (result.diff or "").splitlines() if re.match(r"[-+](?![-+]{2})", line)
        ]
        print(f"  {module}:{spec.start_pos[0]} {spec.operator_name}", *changed, sep="\n    ")
    sys.stdout.flush()
    return len(alive)


def _inside(spec: MutationSpec, spots: list[tuple[tuple[int, int], tuple[int, int]]]) -> bool:
    return any(begin <= spec.start_pos and spec.end_pos <= end for begin, end in spots)


def main() -> None:
    """Read the arguments, and mutate the modules one after another."""
    parser = argparse.ArgumentParser(description="Print the mutants that no unit test notices.")
    parser.add_argument("--python", required=True, help="what runs the unit tests")
    parser.add_argument("files", nargs="*", metavar="FILE", help="default: every pure module")
    parser.add_argument("--sample", type=int, metavar="N", help="at most N mutants of each file")
    parser.add_argument("--seed", type=int, default=1, help="which sample; default: 1")
    given = parser.parse_args()
    files = given.files or sorted(
        str(path.relative_to(ROOT)) for pattern in PURE for path in ROOT.glob(pattern)
    )
    if unknown := [name for name in files if not (ROOT / name).is_file()]:
        parser.error(f"there is no file {unknown[0]}; name it from the root of the checkout")
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "tree"
        shutil.copytree(ROOT, copy, ignore=_NOT_COPIED)
        for name in files:
            mutate(copy, name, given.python, given.sample, given.seed)


if __name__ == "__main__":
    main()
