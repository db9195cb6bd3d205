"""Templates of a package, compiled when they are loaded: none is read when somebody asks for it."""

from jinja2 import Environment, PackageLoader, StrictUndefined


def load_templates(package: str) -> Environment:
    """Return an environment that has every page of the package, everything escaped."""
    made = Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # What was compiled stays as it is: a wheel's templates do not change while it runs.
        auto_reload=False,
        cache_size=-1,
    )
    for name in made.list_templates(extensions=["html"]):
        made.get_template(name)
    return made
