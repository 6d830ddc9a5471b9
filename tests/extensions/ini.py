"""A file format: adapter.ini says what it belongs to, factors.safetensors holds `SITE/down`,
`SITE/up` and, where the parametrisation is known, `SITE/bias`, or `SITE/gamma` and `SITE/beta`."""

from __future__ import annotations

import configparser
import io

from pemlang.diagnostics import Fault, visible
from pemlang.formats import (
    Adapter,
    Detection,
    Format,
    Layout,
    OutputLayout,
    OutputTensor,
    headers_restored,
    headers_signature,
    register,
)
from pemlang.modules import PARAMETRISATIONS, Shapes, SiteShape
from pemlang.tensorfiles import read_header

NAMES = {"a": "down", "b": "up"}


class Ini(Format):
    """The directories of this format."""

    name = "ini"
    weights = "factors.safetensors"
    texts = ("adapter.ini",)

    def detect(self, place):
        """See Format."""
        whole = (place / self.weights).is_file()
        fits = (place / "adapter.ini").is_file()
        return Detection(fits, whole, "adapter.ini" if fits else "no adapter.ini")

    def read(self, place):
        """See Format."""
        return self.of_header(place, read_header(place / self.weights))

    def assembled(self, place, fields, header):
        """What the header and the fields say."""
        factors: dict[str, dict[str, str]] = {}
        for key in sorted(header.entries):
            site, _, part = key.rpartition("/")
            factors.setdefault(site, {})[part] = key
        shapes, ranks, keys = {}, {}, {}
        for site, parts in factors.items():
            shapes[site], ranks[site], keys[site] = of_site(site, parts, header)
        ranks = {site: rank for site, rank in ranks.items() if rank}
        dtypes = frozenset(entry.dtype for entry in header.entries.values())
        return Adapter(
            self,
            place,
            place / self.weights,
            header,
            Layout(Shapes(shapes), ranks, keys, {}, dtypes),
            {site: float(fields["scale"]) for site in ranks},
            base=fields["base"],
            fields=fields,
        )

    def of_header(self, place, header):
        """See Format."""
        return self.assembled(place, read(place / "adapter.ini"), header)

    def files(self, adapter):
        """See Format."""
        return [adapter.directory / "adapter.ini", adapter.weights]

    def signature(self, adapter):
        """See Format."""
        return {"fields": dict(adapter.fields), **headers_signature(adapter)}

    def restored(self, signature, directory, weights):
        """See Format."""
        return self.assembled(directory, signature["fields"], headers_restored(signature)[0])

    def layout(self, spec):
        """See Format."""
        scales = set(spec.scales.values()) - {1.0}
        if len(scales) > 1:
            raise Fault("PEM0421", "adapter.ini has one scale", "rescale it")
        config = configparser.ConfigParser()
        scale = scales.pop() if scales else 1.0
        config["adapter"] = {"base": spec.base or "", "scale": repr(scale)}
        text = io.StringIO()
        config.write(text)
        tensors = [
            OutputTensor(
                f"{site}/{NAMES.get(factor, factor)}", spec.dtype, shape, site, factor, around
            )
            for site in spec.shapes
            for factor, shape, around in spec.factors(site)
        ]
        return OutputLayout({self.weights: tensors}, {"adapter.ini": text.getvalue()})


def of_site(site, parts, header):
    """The shape, the rank and the keys of a site."""
    if parts.keys() == {"down", "up"}:
        down, up = (header.entries[parts[name]].shape for name in ("down", "up"))
        shape = SiteShape("lora", "linear", down[1:], up[:1])
        return shape, down[0], (parts["down"], parts["up"])
    for record in PARAMETRISATIONS.values():
        if parts.keys() == set(record.factors):
            keys = tuple(parts[factor] for factor in record.factors)
            return SiteShape(record.name, "linear", header.entries[keys[0]].shape), 0, keys
    raise Fault("PEM0417", f"site {visible(site)} has {sorted(parts)}", "give it down and up")


def read(path):
    """The fields of adapter.ini."""
    config = configparser.ConfigParser()
    config.read(path)
    return dict(config["adapter"])


register(Ini())
