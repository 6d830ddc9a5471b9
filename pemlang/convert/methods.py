"""The methods of mergekit, a record each: what its settings are, and the expression that it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from pemlang.convert.merge import BaseRole, MergekitMethod, ModelMerge, call, listed, unless
from pemlang.dataclass import dataclass
from pemlang.graph.numbers import shown

Defaults = Mapping[str, Fraction | None]

ONE, YES, NO = Fraction(1), Fraction(1), Fraction(0)
WEIGHT: Defaults = {"weight": None}


# --- differences to a base, made sparse, weighed and summed ---------------------------------


@dataclass(frozen=True)
class TaskArithmetic:
    """mergekit's methods on task vectors.

    Attributes:
        name: what the whole is called here.
        alone: what makes one vector sparse.
        elects: whether the vectors elect a sign.
        extra: the setting beside the density.
    """

    name: str
    alone: str | None = None
    elects: bool = False
    extra: str | None = None

    def __call__(self, merge: ModelMerge) -> str:
        """The expression of a merge."""
        name, vectors = self.name, merge.vectors
        settings = self._sparse(merge)
        if any(len(set(each)) > 1 for each in settings.values()):
            vectors = self._each_alone(merge, settings)
            name = "ties" if self.elects else "task_arithmetic"
            settings = {"density": ["1"]} if self.elects else {}
        normalize = merge.truth("normalize")
        scale = unless(merge.number("lambda"), 1)
        weights = merge.each("weight")
        if normalize and not self.elects:
            scale = _over(merge.number("lambda"), merge, weights)
        if name == "task_arithmetic" and scale is None:
            return _summed(merge.base, vectors, weights)
        args: dict[str, str | None] = {"weights": _weights(weights)}
        args |= {key: each[0] for key, each in settings.items()}
        args["rescale"] = self._rescale(merge) if name == self.name else None
        if self.elects:
            args["normalize"] = "weights" if normalize else "off"
        return f"{merge.base} + {call(name, [listed(vectors)], **args, scale=scale)}"

    def _sparse(self, merge: ModelMerge) -> dict[str, list[str]]:
        """What makes each vector sparse; a setting that is nowhere given is left to its default."""
        if self.alone is None:
            return {}
        settings = {"density": merge.each("density")}
        if self.alone in ("dare", "della") and set(settings["density"]) != {"1"}:
            merge.remark(
                f"What {self.alone} keeps is drawn from the seed: the same on every machine, and "
                "other than mergekit draws."
            )
        if self.extra is None:
            return settings
        each = merge.each(self.extra)
        if self.extra == "gamma" and "0" in each:
            merge.remark(
                "Where gamma is 0 mergekit gives zeros; here nothing is taken off the top."
            )
        if set(each) != {shown(EXTRA[self.extra])}:
            settings[self.extra] = each
        return settings

    def _each_alone(self, merge: ModelMerge, settings: Mapping[str, list[str]]) -> list[str]:
        """The vectors, each made sparse by its own settings."""
        assert self.alone is not None
        sparse = []
        for index, (point, vector) in enumerate(zip(merge.points, merge.vectors, strict=True)):
            own = {key: each[index] for key, each in settings.items()}
            if own["density"] == "1":
                sparse.append(vector)
                continue
            text = call(self.alone, [listed([vector])], **own, rescale=self._rescale(merge))
            sparse.append(merge.let(f"sparse_{point}".split("[")[0], text))
        return sparse

    def _rescale(self, merge: ModelMerge) -> str | None:
        given = merge.truth("rescale")
        if self.alone in ("dare", "della"):
            return "l1" if given else "off"
        if given and self.alone is not None:
            message = f"`{self.name}` does not bring what it keeps back to the norm of all of it"
            raise merge.refused("rescale", message, "leave rescale out, or merge by dare or della")
        return None


def _over(scale: str, merge: ModelMerge, weights: Sequence[str]) -> str | None:
    """A scale over the sum of the weights."""
    exact = merge.constants("weight")
    if exact is not None and abs(sum(exact, NO)) < Fraction(1, 10**8):
        return unless(scale, 1)  # as mergekit has it
    total = " + ".join(weights) if exact is None else shown(sum(exact, NO))
    return unless(f"{scale} / ({total})" if exact is None else f"{scale} / {total}", 1)


def _summed(base: str | None, vectors: Sequence[str], weights: Sequence[str]) -> str:
    """A sum with weights, written out."""
    text = str(base)
    for vector, weight in zip(vectors, weights, strict=True):
        sign, size = ("-", weight[1:]) if weight.startswith("-") else ("+", weight)
        inside = f"({vector})" if " " in vector else vector
        text += f" {sign} {inside if size == '1' else f'{size} * {inside}'}"
    return text


def _weights(weights: Sequence[str]) -> str | None:
    return None if set(weights) == {"1"} else listed(weights)


EXTRA = {"gamma": Fraction(1, 100), "epsilon": Fraction(15, 100)}


def _task_arithmetic(
    name: str, here: TaskArithmetic, normalize: Fraction = NO, rescale: Fraction = NO
) -> MergekitMethod:
    of_all = {"normalize": normalize, "rescale": rescale, "lambda": ONE, "int8_mask": NO}
    extra = {here.extra: EXTRA[here.extra]} if here.extra else {}
    return MergekitMethod(name, here, "origin", of_all, {**WEIGHT, "density": ONE, **extra})


# --- means of models ------------------------------------------------------------------------


def _linear(merge: ModelMerge) -> str:
    weights, exact = merge.each("weight"), merge.constants("weight")
    normalize = None
    if not merge.truth("normalize"):
        if exact is not None and sum(exact) != 1:
            raise merge.refused(
                "normalize",
                f"the weights sum to {shown(sum(exact, NO))}: models are points, and a sum of them "
                "is a model only where the weights sum to 1",
                "leave normalize out, or merge by task_arithmetic",
            )
        normalize = "false" if exact is None else None
    if len(set(weights)) == 1:
        return call("mean", [listed(merge.points)])
    return call("linear", [listed(merge.points)], weights=listed(weights), normalize=normalize)


def _slerp(merge: ModelMerge) -> str:
    return call("slerp", merge.points, t=merge.number("t"))


def _nearswap(merge: ModelMerge) -> str:
    return call("nearswap", merge.points, t=merge.number("t"))


def _arcee_fusion(merge: ModelMerge) -> str:
    merge.remark(
        "For its quartiles mergekit draws a million entries of a tensor that has more; here they "
        "are those of all."
    )
    return call("arcee_fusion", merge.points)


def _nuslerp(merge: ModelMerge) -> str:
    along = None
    if not merge.truth("nuslerp_flatten"):
        along = "columns" if merge.truth("nuslerp_row_wise") else "rows"
    settings = {"weights": listed(merge.each("weight")), "along": along}
    if merge.base is None:
        return call("nuslerp", merge.points, **settings)
    return f"{merge.base} + {call('nuslerp', merge.vectors, **settings)}"


def _multislerp(merge: ModelMerge) -> str:
    weights, exact = merge.each("weight"), merge.constants("weight")
    if not merge.truth("normalize_weights") and (exact is None or sum(exact) != 1):
        message = "`multislerp` divides the weights by their sum"
        raise merge.refused("normalize_weights", message, "give weights that sum to 1")
    equal = None if len(set(weights)) == 1 else listed(weights)
    return _of_list("multislerp", merge, weights=equal)


def _karcher(merge: ModelMerge) -> str:
    rounds, tolerance = shown(merge.constant("max_iter")), shown(merge.constant("tol"))
    settings = {"rounds": unless(rounds, 10)}
    settings["tolerance"] = unless(tolerance, TINY)
    return _of_list("karcher", merge, **settings)


def _model_stock(merge: ModelMerge) -> str:
    if len(merge.points) < 2:
        message = "`model_stock` needs two models beside the base"
        raise merge.wrong(merge.span, message, "add one, or merge by task_arithmetic")
    return _of_list("model_stock", merge, along="rows" if merge.truth("filter_wise") else None)


def _ram(merge: ModelMerge) -> str:
    return _of_list("ram", merge, threshold=unless(merge.number("epsilon"), TINY))


def _ramplus_tl(merge: ModelMerge) -> str:
    settings = {name: unless(merge.number(name), usual) for name, usual in RAMPLUS.items()}
    settings["threshold"] = unless(merge.number("epsilon"), TINY)
    return _of_list("ramplus_tl", merge, **settings)


def _sce(merge: ModelMerge) -> str:
    merge.remark(
        "mergekit weighs all models alike where the mean square of what they change is below 1e-6, "
        "as that of a fine-tune often is; here their shares are taken however small they are."
    )
    return _of_list("sce", merge, density=unless(merge.number("select_topk"), 1))


def _of_list(name: str, merge: ModelMerge, **settings: str | None) -> str:
    """A method of models, or of what they add to a base."""
    if merge.base is None:
        return call(name, [listed(merge.points)], **settings)
    return f"{merge.base} + {call(name, [listed(merge.vectors)], **settings)}"


def _passthrough(merge: ModelMerge) -> str:
    if merge.constants("scale") != [ONE]:
        message = "models are points: their weights do not scale"
        help = "leave scale out; to weaken what a model adds to its base, merge by task_arithmetic"
        raise merge.refused("scale", message, help)
    return merge.points[0]


def _method(
    name: str,
    write: Callable[[ModelMerge], str],
    base: BaseRole,
    of_all: Defaults | None = None,
    of_each: Defaults | None = None,
    models: int | None = None,
) -> MergekitMethod:
    return MergekitMethod(name, write, base, of_all or {}, of_each or {}, models)


TINY = Fraction(1, 100_000)
RAMPLUS = {"r": Fraction(1, 10), "alpha": Fraction(2, 10)}
_ROWS = {"nuslerp_row_wise": NO, "nuslerp_flatten": YES}

METHODS = {
    method.name: method
    for method in (
        _task_arithmetic("task_arithmetic", TaskArithmetic("task_arithmetic")),
        _task_arithmetic("ties", TaskArithmetic("ties", "magnitude_prune", True), normalize=YES),
        _task_arithmetic("dare_ties", TaskArithmetic("dare_ties", "dare", True), rescale=YES),
        _task_arithmetic("dare_linear", TaskArithmetic("dare_linear", "dare"), rescale=YES),
        _task_arithmetic("della", TaskArithmetic("della_ties", "della", True, "epsilon"), YES, YES),
        _task_arithmetic(
            "della_linear", TaskArithmetic("della_linear", "della", False, "epsilon"), NO, YES
        ),
        _task_arithmetic(
            "breadcrumbs", TaskArithmetic("breadcrumbs", "breadcrumbs", False, "gamma")
        ),
        _task_arithmetic(
            "breadcrumbs_ties", TaskArithmetic("breadcrumbs_ties", "breadcrumbs", True, "gamma")
        ),
        _method("linear", _linear, "member", {"normalize": YES}, WEIGHT),
        _method("slerp", _slerp, "first", {"t": None}, models=1),
        _method("nearswap", _nearswap, "first", {"t": None}, models=1),
        _method("nuslerp", _nuslerp, "optional", _ROWS, WEIGHT, models=2),
        _method("multislerp", _multislerp, "optional", {"normalize_weights": YES}, WEIGHT),
        _method("karcher", _karcher, "member", {"max_iter": Fraction(10), "tol": TINY}),
        _method("model_stock", _model_stock, "origin", {"filter_wise": NO}),
        _method("sce", _sce, "origin", {"select_topk": ONE, "int8_mask": NO}),
        _method("passthrough", _passthrough, "member", {}, {"scale": ONE}, models=1),
        _method("arcee_fusion", _arcee_fusion, "first", models=1),
        _method("ram", _ram, "origin", {"epsilon": TINY}),
        _method("ramplus_tl", _ramplus_tl, "origin", {**RAMPLUS, "epsilon": TINY}),
    )
}
"""The methods by name."""

SETTINGS = {name for method in METHODS.values() for name in (*method.of_all, *method.of_each)}
"""What some method takes."""
