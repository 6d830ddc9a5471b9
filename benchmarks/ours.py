"""Build a recipe in this process, and print how long its phases took, as JSON.

python ours.py RECIPE OUT [THREADS]
"""

from __future__ import annotations

import json
import sys

from pemlang.execute import for_one_command, get_ready

for_one_command()  # as `pem build` does
get_ready()

import pemlang  # noqa: E402

recipe, out, *threads = sys.argv[1:]
options = pemlang.BuildOptions(threads=int(threads[0]) if threads else None)
made = pemlang.load(recipe).build(out, options=options)
print(json.dumps(dict(made.seconds)))
