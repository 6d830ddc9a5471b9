"""Build a recipe in this process, and print how long its phases took, as JSON.

python ours.py RECIPE OUT
"""

from __future__ import annotations

import json
import sys

import pemlang
from pemlang.execute import for_one_command
from pemlang.pipeline import get_ready

for_one_command()  # as `pem build` does
get_ready()
made = pemlang.load(sys.argv[1]).build(sys.argv[2])
print(json.dumps(dict(made.seconds)))
