"""Build a recipe in this process, and print how long its phases took, as JSON.

python ours.py RECIPE OUT
"""

from __future__ import annotations

import gc
import json
import sys

import pemlang

gc.set_threshold(200_000, 50, 50)  # as `pem` does
made = pemlang.load(sys.argv[1]).build(sys.argv[2])
print(json.dumps(dict(made.seconds)))
