"""Programs and their steps, the numerics they use, and the plan as plain data."""

from __future__ import annotations

from pemlang.lazy import door

__getattr__ = door(
    __name__,
    builder="Builder KernelCall Value",
    program="Program",
    step="NotFinite Step",
    **{
        "steps.elements": "Abs Add Div Equal Less Mul Sign Sub",
        "steps.merges": "MergeTensors",
        "steps.deltas": "CutDense OverDeltas",
    },
    interpret="computed meaning",
    algebra="NUMPY Algebra",
    plan="FusedLoop NumberSink OutputFile Plan TensorPlace TensorSink",
    rounding="WORTH_SAYING ResultNotFinite Seen look",
    lowrank="MAX_CONDITION LowRank inner inner_of_all norm overlap singular_values triangle "
    "truncate",
    philox="drawn",
    entries="Entries",
    sketch="PRECISE TOLERANCE truncated_svd",
    methods="Combination Elementwise Factorised MergeInputs MergeKernel MergeSettings SiteKernel",
    measuring="SiteMeasure",
    site="SitePart",
    triton="MOST_TENSORS runs_on_gpu triton_source",
)
