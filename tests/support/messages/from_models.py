"""Messages about the files of whole models."""

from __future__ import annotations

from pathlib import Path

import pytest

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
