"""Messages about the files of whole models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support import PREFIX, lora
from support.messages.case import Diagnostics, made, text_checked
from support.models import model


@made
def PEM0412_lacks_shards(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    (model(root / "models/less", shards=3) / "model-00002-of-00003.safetensors").unlink()
    return text_checked(root, 'model m = "models/less"\nsave m to "out/m"\n')


@made
def PEM0430_file(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    model(root / "models/filed")
    return text_checked(root, 'model m = "models/filed/model.safetensors"\nsave m to "out/m"\n')


@made
def PEM0430_on_the_hub(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    return text_checked(root, 'model m = "org/name"\nsave m to "out/m"\n')


@made
def PEM0437_link(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    (root / "secret").write_text("of another")
    place = model(root / "models/linked") / "tokenizer.json"
    place.unlink()
    place.symlink_to(root / "secret")
    return text_checked(root, 'model m = "models/linked"\nsave m to "out/m"\n')


@made
def PEM0711_tuned(root: Path, patch: pytest.MonkeyPatch) -> Diagnostics:
    shapes = {"embed.weight": (20, 16), "q.weight": (12, 16)}
    for tuned, name in enumerate(("words", "tuned")):
        model(root / "models" / name, tuned, shapes)
    rows = {f"{PREFIX}embed.base_layer.weight": np.ones((20, 16), "f4")}
    at = root / "adapters/copying"
    lora(at, sites={"q": (12, 16)}, extra=rows, base_model_name_or_path="models/words")
    declared = 'base b = "models/words"\nmodel m on b = "models/tuned"\nadapter x on b = '
    return text_checked(root, f'{declared}"adapters/copying"\nsave m + x to "out/m"\n')
