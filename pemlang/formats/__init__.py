"""Files of adapters and models, one record a format.

Each file beside this one registers its own; a place is held to PEFT's first.
"""

from __future__ import annotations

import importlib
import pkgutil

from pemlang.formats.adapter import Adapter, Layout, Site
from pemlang.formats.gguf_names import ARCHITECTURES
from pemlang.formats.patterns import BadPattern, Pattern
from pemlang.formats.peft import PEFT
from pemlang.formats.quantised import QUANTISATIONS
from pemlang.formats.reading import read_adapter
from pemlang.formats.record import (
    FORMATS,
    AdapterSpec,
    Detection,
    Format,
    OutputLayout,
    OutputTensor,
    formats_of,
    register,
)
from pemlang.formats.signature import (
    Malformed,
    compact,
    expanded,
    headers_restored,
    headers_signature,
)

__all__ = [
    "ARCHITECTURES", "FORMATS", "PEFT", "QUANTISATIONS", "Adapter", "AdapterSpec", "BadPattern",
    "Detection", "Format", "Layout", "Malformed", "OutputLayout", "OutputTensor", "Pattern", "Site",
    "compact", "expanded", "formats_of", "headers_restored", "headers_signature", "read_adapter",
    "register",
]  # fmt: skip

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
