"""What a run of a recipe obtained, beside what the paper published."""

from collections.abc import Callable, Mapping, Sequence

from fusion.evaluation.metrics import METRICS
from fusion.protocols.catalog import describe_protocol
from fusion.recipes.catalog import Recipe
from fusion.recipes.published import Figure, Published

THIS_ONE = ", the variant run here"


def compare_with_published(
    recipe: Recipe,
    obtained: Mapping[str, float],
    protocol: str,
    labels: str,
    *,
    frozen: bool,
    corpus: str = "",
    changed: Sequence[str] = (),
    streams: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
) -> list[str]:
    """Puts what was obtained beside what was published, both protocols and the audit; judges neither.

    Args:
        recipe: of the run.
        obtained: scores by name, as fractions.
        protocol: that of the run, never ``auto``.
        labels: name of its label set.
        frozen: whether the encoders stayed as they were.
        corpus: of the run, if it is not that of the recipe.
        changed: the fields that the run sets otherwise, each as ``field=value``.
        streams: role -> stream of the run, if they are not those of the recipe.
        only: what narrows its utterances, each as the option that does.

    Returns:
        Lines to print.
    """
    features = "frozen features" if frozen else "encoders trained too"
    published = recipe.published
    variant = published.matching_variant(changed, recipe.streams if streams is None else streams)
    run = f"{corpus or recipe.corpus}, {features}, protocol {protocol}, labels {labels}"
    otherwise = [*changed, *_elsewhere(recipe, protocol, labels, streams or {}), *only]
    run += f", NOT the recipe: {', '.join(otherwise)}" if otherwise else ""
    run += f", published as {variant.what!r}" if variant else ""
    rows = [
        ("", *METRICS, ""),
        ("obtained", *_cells(obtained), run),
        *(
            (f"published: {one.what}", *_cells(one.scores), one.status + (THIS_ONE if one is variant else ""))
            for one in published.figures
        ),
    ]
    return [
        *_aligned(rows),
        *_origin(published),
        f"protocol here: {describe_protocol(protocol)}",
        *(f"note: {note}" for note in published.notes),
    ]


def published_table(recipe: Recipe, tell: Callable[[Mapping[str, object]], str]) -> list[str]:
    """Gives what a paper published of its system and of its variants.

    Args:
        recipe: of the system.
        tell: writes the fields that make a variant.
    """
    published = recipe.published
    rows = [
        (f"published: {one.what}", *_cells(one.scores), f"{one.status}: {_variant(one, tell)}")
        for one in published.figures
    ]
    return [*_aligned([("", *METRICS, ""), *rows]), *_origin(published)]


def _elsewhere(recipe: Recipe, protocol: str, labels: str, streams: Mapping[str, str]) -> list[str]:
    """Says what a run reads, divides or tells apart in another way than the recipe."""
    asked = {"protocol": (recipe.protocol, protocol), "labels": (recipe.labels, labels)}
    asked |= {role: (own, streams.get(role, own)) for role, own in recipe.streams.items()}
    return [f"{name}={mine}" for name, (theirs, mine) in asked.items() if mine != theirs]


def _variant(figure: Figure, tell: Callable[[Mapping[str, object]], str]) -> str:
    """Says what a figure is of, in our own words."""
    return f"head {figure.head}" if figure.head else tell(figure.change) if figure.change else "the recipe"


def _origin(published: Published) -> list[str]:
    return [f"published by: {published.paper}", f"its protocol: {published.protocol}"]


def _cells(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores[name]:.4f}" if name in scores else "-" for name in METRICS]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Sets the first column to the left, scores to the right."""
    width = max(len(row[0]) for row in rows)
    return ["  ".join([row[0].ljust(width), *(cell.rjust(6) for cell in row[1:-1]), row[-1]]).rstrip() for row in rows]
