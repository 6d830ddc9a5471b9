"""action.yml: its inputs, and its steps."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml
from support.action import ROOT

ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text())


def test_no_input_is_pasted_into_a_script() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert "run" not in step or step["shell"] == "bash"


def test_every_input_is_said_and_used() -> None:
    steps = json.dumps(ACTION["runs"]["steps"])
    assert set(ACTION["inputs"]) == set(re.findall(r"inputs\.([\w-]+)", steps))
    for name, told in ACTION["inputs"].items():
        assert told["description"].endswith("."), name
        assert "default" in told


def test_the_script_reads_what_the_action_hands_it() -> None:
    script = (ROOT / "ci/review.py").read_text()
    [review] = [step for step in ACTION["runs"]["steps"] if step.get("name") == "Review"]
    handed = {name for name in review["env"] if name.startswith("PEM_")}
    assert handed == set(re.findall(r"\bPEM_\w+", script))
