"""What every test may use: each piece brings its fixtures in a module `fixtures_<piece>.py`."""

from pathlib import Path

pytest_plugins = [
    f"tests.{path.stem}" for path in sorted(Path(__file__).parent.glob("fixtures_*.py"))
]
