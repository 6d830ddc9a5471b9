"""Print how often an adapter is right, in percent, as JSON: what `pem tune` goes by.

    pem tune merge.pem --metric "python score.py {output}" --maximize accuracy

It judges half of the sentences in held-out/. The other half, --test, is for what was chosen by
these.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from table import KINDS, Sentence, accuracy, held_out, load, quiet


def half(kind: str, test: bool) -> list[Sentence]:
    """Every other pair of sentences of a kind: one of blame, one of praise."""
    return [x for index, x in enumerate(held_out(kind)) if index // 2 % 2 == test]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--test", action="store_true", help="on the half no weight was chosen by")
    args = parser.parse_args()
    quiet()
    torch.set_num_threads(2)
    model = load(args.adapter)
    right = {kind: accuracy(model, half(kind, args.test)) for kind in KINDS}
    print(json.dumps({"accuracy": sum(right.values()) / len(right), **right}))


if __name__ == "__main__":
    main()
