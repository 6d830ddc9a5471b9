"""Print how often each merge of methods.pem is right, beside the two experts it is made of.

The sentences, and how they are judged, are the quickstart's: plain PEFT on the same encoder.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "quickstart"
sys.path.append(str(QUICKSTART))

from table import accuracy, held_out, load, quiet  # noqa: E402


def main() -> None:
    argparse.ArgumentParser(
        description="Print how often each merge of methods.pem is right on held-out sentences."
    ).parse_args()
    built = sorted(config.parent for config in HERE.glob("out/*/adapter_config.json"))
    if not built:
        recipe = os.path.relpath(HERE / "methods.pem")
        sys.exit(f"Nothing is built yet. Build the recipe first:\n\n    pem build {recipe}\n")
    quiet()
    experts = [QUICKSTART / "adapters" / name for name in ("movies-lora", "products-lora")]
    movies, products = held_out("movies"), held_out("products")
    print(f"{'percent right':24}{'movies':>8}{'products':>10}{'mean':>8}")
    for directory in [*experts, *built]:
        model = load(directory)
        one, other = accuracy(model, movies), accuracy(model, products)
        print(f"{directory.name:24}{one:8.1f}{other:10.1f}{(one + other) / 2:8.1f}", flush=True)


if __name__ == "__main__":
    main()
