"""What a new library or a new recipe begins with: files that pass their own checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pemlang.version import LANGUAGE, __version__

_LANGUAGE = f"language {LANGUAGE}\n\n"

_FUNCTION = """\
## The share `weight` of one adapter, and the rest of another.
def mixed(x: adapter, y: adapter, weight: number in 0..1 = 0.5) -> adapter = (
    weight * x + (1 - weight) * y
)

test "a mix goes from one adapter to the other" {
    let a = sample(lora(seed=1))
    let b = sample(lora(seed=2))
    assert same(mixed(a, b, 1), a)
    assert same(mixed(a, b, 0), b)
    assert same(mixed(a, b), mixed(b, a))
    assert fails(mixed(a, sample(ia3)), "PEM0304")
    assert fails(mixed(a, b, 2), "PEM0214")
}
"""

_HOOKS = r"""repos:
  - repo: local
    hooks:
      - id: pem-fmt
        name: lay recipes out
        entry: python -P -m pemlang.cli.hook fmt
        language: system
        files: \.pem$
      - id: pem-test
        name: test recipes
        entry: python -P -m pemlang.cli.hook test
        language: system
        files: \.pem$
"""

_WORKFLOW = """\
name: recipes
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - run: pip install {installed}
      - run: pem fmt --check {folder}
      - run: pem check {folder}
      - run: pem test {folder}
"""

_IGNORED = """\
__pycache__/
*.egg-info/
*.whl
.venv/
/build/
/dist/
/out/
# Recipes, which another .gitignore may leave out as certificates.
!*.pem
"""

_PROJECT = """\
[build-system]
requires = ["setuptools>=70.1"]
build-backend = "setuptools.build_meta"

[project]
name = "{name}"
version = "0.1.0"
description = "Recipes that others import"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["pemlang>={version}"]

# What recipes call the library, and the package that holds it: import {name}.merges (mixed)
[project.entry-points."pemlang.libraries"]
{name} = "{name}"

[tool.setuptools]
package-dir = {{ "" = "src" }}
packages = ["{name}"]

[tool.setuptools.package-data]
{name} = ["**/*.pem"]
"""

_ABOUT_LIBRARY = """\
# {name}

Recipes for [pemlang](https://pypi.org/project/pemlang/) that others import:

```pem
import {name}.merges (mixed)
```

    pip install pemlang .      install it
    pem test src               run its tests
    pip wheel --no-deps .      make what others install

Where a recipe is locked, `pem lock --upgrade {name}` shows what another version changes in it.
"""

_ABOUT_RECIPE = """\
# {name}

    pip install pemlang
    pem test                   run the tests
    pem check {name}.pem
    pem build {name}.pem       write what it saves, once it declares adapters
    pem lock {name}.pem        write down what it is made from
"""

_DECLARED = """\
# What is merged, once these are the paths of your adapters: take the marks away, here and below.
# adapter first = "adapters/first"
# adapter second = "adapters/second"

"""
_SAVED = """
# save mixed(first, second) to "out/mixed"
"""


def _library(name: str) -> dict[str, str]:
    return {
        "pyproject.toml": _PROJECT.format(name=name, version=__version__),
        f"src/{name}/merges.pem": _LANGUAGE + _FUNCTION,
        "README.md": _ABOUT_LIBRARY.format(name=name),
        ".github/workflows/recipes.yml": _WORKFLOW.format(installed="pemlang .", folder="src"),
    }


def _recipe(name: str) -> dict[str, str]:
    return {
        f"{name}.pem": _LANGUAGE + _DECLARED + _FUNCTION + _SAVED,
        "README.md": _ABOUT_RECIPE.format(name=name),
        ".github/workflows/recipes.yml": _WORKFLOW.format(installed="pemlang", folder="."),
    }


STARTS: Mapping[str, Callable[[str], dict[str, str]]] = {"library": _library, "recipe": _recipe}
"""What can be begun: from its name to the text of each file."""


def start(kind: str, name: str) -> dict[str, str]:
    """The files of a start.

    Args:
        kind: one of STARTS.
        name: what it is called, a name of the language.
    """
    return {**STARTS[kind](name), ".pre-commit-config.yaml": _HOOKS, ".gitignore": _IGNORED}
