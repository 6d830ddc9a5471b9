"""How a recipe's paths become adapters and models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pemlang.check.elaborate import Loaders
from pemlang.diagnostics import Fault, visible
from pemlang.formats.peft import Adapter, read_adapter
from pemlang.formats.transformers import read_model
from pemlang.inputs.hub import HUB_NAME, SCHEME, read_hub_adapter
from pemlang.inputs.identities import Identities
from pemlang.modules.sites import Shapes
from pemlang.tensorfiles.disk import is_dir


def loaders(whole: bool = False, identify: Callable[[Adapter], str] | None = None) -> Loaders:
    """The usual loaders: directories, and the hub.

    Args:
        whole: fetch the tensors of hub adapters too.
        identify: the digest of an adapter, which is its identity; where it is, when not given.
    """
    seen: dict[str, Adapter] = {}
    identities = Identities()

    def adapter(path: str, directory: Path) -> tuple[str, Adapter]:
        remote = path.startswith(SCHEME)
        place = path if remote else str(local(path, directory))
        if place not in seen:
            if not remote and HUB_NAME.fullmatch(path) and not is_dir(Path(place)):
                raise Fault("PEM0410", f"there is no directory {visible(place)}", _on_the_hub(path))
            seen[place] = read_hub_adapter(path, whole) if remote else read_adapter(Path(place))
        found = seen[place]
        if identify is None:
            return str(found.directory), found
        return identities.of(path, directory, found.directory, identify(found)), found

    return Loaders(adapter, model, identities)


def model(path: str, directory: Path) -> tuple[str, Shapes]:
    """A model on disk: where it is, and its shapes."""
    if path.startswith(SCHEME):
        raise Fault(
            "PEM0430",
            f"the weights of {visible(path)} are needed here, and models are read from disk",
            "download the model and give its directory",
        )
    found = local(path, directory)
    return str(found), read_model(found)


def _on_the_hub(path: str) -> str:
    return f'give the directory that PEFT\'s save_pretrained wrote; on the hub: "{SCHEME}{path}"'


def local(path: str, directory: Path) -> Path:
    """A path of a recipe, relative to the file that names it."""
    try:
        if "\0" in path or not path:
            raise ValueError
        return (directory / path).resolve()
    except (OSError, ValueError, RuntimeError):
        raise Fault("PEM0410", f"{visible(path)!r} is not a path", "give a directory") from None
