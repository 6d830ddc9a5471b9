"""Train what is missing, build every composition, measure it, and write results.md.

Each step is written down in results.json once it is done: run again after an interruption, and
it goes on from there. Modules that are there are not trained again.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from pathlib import Path

import steps
from settings import HERE

DATA = HERE.parent.parent.parent / "shared" / "data"
CORPORA = ("sentence_polarity", "pros_cons", "subjectivity")
BASES = {"minilm": "stages", "smollm2": "smollm2.stages"}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train what is missing, build, measure, and write results.md.",
        epilog="It goes on where it was interrupted. The pages say how long each step took.",
    )
    parser.add_argument("--base", choices=BASES, help="on one base alone")
    parser.add_argument(
        "--data",
        type=Path,
        default=DATA,
        help="the folder with NLTK's corpora sentence_polarity.zip, pros_cons.zip and "
        "subjectivity.zip (nltk.download fetches them into corpora/)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=(),
        metavar="STEP",
        help="do the steps that start so, such as train/0 or validation/transfer",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument(
        "--render", action="store_true", help="only write results.md and plots from results.json"
    )
    options = parser.parse_args()
    if not options.render and (
        missing := [name for name in CORPORA if not (options.data / f"{name}.zip").is_file()]
    ):
        parser.error(f"there is no {missing[0]}.zip in {options.data}; see --data in --help")
    return options


def main() -> None:
    options = arguments()
    left = []
    for base in [options.base] if options.base else BASES:
        plan: steps.Plan = importlib.import_module(BASES[base]).PLAN
        if not options.render:
            plan.run(tuple(options.only), options.data, options.workers)
        if not plan.render():
            left.append(base)
    if left:
        sys.exit(f"Some steps are left on {' and '.join(left)}: run this again.")


if __name__ == "__main__":
    main()
