"""What commands give as JSON: one object, with what is said as `messages` in it, and the fields of
one of these beside it where nothing is wrong. docs/schemas is written from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pemlang.dataclass import dataclass
from pemlang.show.adapter_diff import AdapterDiffJson
from pemlang.show.codes import ExplainJson
from pemlang.show.findings import CheckJson, FmtJson
from pemlang.show.graph import GraphJson
from pemlang.show.inspect import InspectJson
from pemlang.show.library import DocJson
from pemlang.show.model_diff import ModelDiffJson
from pemlang.show.numbers import ReportJson
from pemlang.show.operators import OpsJson
from pemlang.show.origin import OriginJson
from pemlang.show.plan import PlanJson
from pemlang.show.recipe_diff import RecipeDiffJson
from pemlang.show.tests import TestsJson
from pemlang.show.tuning import TuneJson
from pemlang.show.written import (
    BuildJson,
    CleanJson,
    ConvertJson,
    InitJson,
    LockJson,
    SignJson,
    VerifyJson,
)


@dataclass(frozen=True)
class PositionJson:
    """A place in a recipe: line and column count from 1, the offset from 0, all in characters."""

    line: int
    column: int
    offset: int


@dataclass(frozen=True)
class MessageJson:
    """One thing that is said. What has no place in a recipe has no file, start and end."""

    code: str
    severity: Literal["error", "warning"]
    message: str
    help: str | None
    notes: Sequence[str]
    file: str | None = None
    start: PositionJson | None = None
    end: PositionJson | None = None


RESULTS: dict[str, tuple[type, ...]] = {
    "init": (InitJson,),
    "convert": (ConvertJson, BuildJson),
    "build": (BuildJson,),
    "tune": (TuneJson,),
    "check": (CheckJson,),
    "fmt": (FmtJson,),
    "test": (TestsJson,),
    "doc": (DocJson,),
    "plan": (PlanJson,),
    "lock": (LockJson,),
    "diff": (RecipeDiffJson, AdapterDiffJson, ModelDiffJson),
    "report": (ReportJson,),
    "graph": (GraphJson,),
    "verify": (VerifyJson,),
    "explain-output": (OriginJson,),
    "sign": (SignJson,),
    "inspect": (InspectJson,),
    "clean": (CleanJson,),
    "ops": (OpsJson,),
    "explain": (ExplainJson,),
}
"""What each command gives that has `--format json`."""
