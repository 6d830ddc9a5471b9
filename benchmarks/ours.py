"""Build a recipe in this process, and print how long its phases took, as JSON.

python ours.py RECIPE OUT
"""

from __future__ import annotations

import json
import sys

from pemlang.execute import for_one_command, get_ready

for_one_command()  # as `pem build` does
get_ready()

import pemlang  # noqa: E402

made = pemlang.load(sys.argv[1]).build(sys.argv[2])
print(json.dumps(dict(made.seconds)))
