"""A metric that is a function of Python, in a process of its own:
`python -m pemlang.pipeline.metric_function package.module:function OUTPUT`."""

from __future__ import annotations

import importlib
import json
import os
import sys


def main() -> None:
    """Call the function with the path of the output, and print what it gives as JSON: all else
    that is printed meanwhile goes to standard error."""
    _, place, output = sys.argv
    ours = os.dup(1)
    os.dup2(2, 1)
    module, _, name = place.partition(":")
    value = getattr(importlib.import_module(module), name)(output)
    sys.stdout.flush()
    with os.fdopen(ours, "w") as stream:
        stream.write(json.dumps(value, default=float) + "\n")  # numbers of NumPy and torch


if __name__ == "__main__":
    main()
