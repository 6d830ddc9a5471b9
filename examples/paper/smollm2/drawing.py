"""The plots of SmolLM2's results.md."""

from __future__ import annotations

import plots
from record import Results

from smollm2.pages import recipes
from smollm2.settings import BY_NAME, PLOTS


def each(name: str, text: str) -> list[plots.Line]:
    """Each method of a composition."""
    return plots.by_method(name, text, BY_NAME[name].measured_by)


def draw(results: Results) -> None:
    """Write the plots of what has been measured."""
    drawn = {
        "generalise": plots.Plot([("a ⊕ b, on movies", each("generalise", "movies"))]),
        "multitask": plots.Plot(
            [
                (f"on {shown}", each("multitask", text))
                for text, shown in (("movies", "polarity"), ("subjectivity", "subjectivity"))
            ],
            one_scale=False,
        ),
        "unlearn": plots.Plot(
            [
                ("on complaints, to be unlearned", each("unlearn", "cons")),
                ("on general text (plots)", each("unlearn", "plots")),
            ],
            "loss of a token, nats",
        ),
        "transfer": plots.Plot(
            [(f"on {text}", each("transfer", text)) for text in ("products", "movies")],
            one_scale=False,
        ),
        "transfer_back": plots.Plot(
            [(f"on {text}", each("transfer_back", text)) for text in ("movies", "products")],
            one_scale=False,
        ),
        "initialisations": plots.Plot(
            [
                ("one initialisation", plots.ways("generalise", "shared_function")),
                ("different initialisations", plots.ways("apart_parameters", "apart_function")),
            ]
        ),
        "detoxify": plots.Plot(
            [
                (title, plots.ways("detoxify", "detoxify_function", text))
                for text, title in (
                    ("blame", "answers that are blame"),
                    ("on_topic", "answers on the topic"),
                )
            ],
            "% on validation",
        ),
    }
    plots.write({name: drawn[name] for name in recipes(results)}, results, PLOTS)
