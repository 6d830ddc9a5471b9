"""The files for editors, and what makes them."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
EDITORS = ROOT / "editors"
RECIPES = sorted([*ROOT.glob("stdlib/*.pem"), *ROOT.glob("examples/**/*.pem")])

sys.path.insert(0, str(EDITORS))
make = importlib.import_module("make")
"""editors/make.py, imported."""
