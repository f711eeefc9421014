"""Comparison of a run of a recipe with the published figures, as lines to print."""

from collections.abc import Callable, Mapping, Sequence

from fusion.evaluation.metrics import METRICS
from fusion.protocols.catalog import describe_protocol
from fusion.recipes.catalog import Recipe
from fusion.recipes.published import Figure, Published

VARIANT_MARK = ", the variant run here"


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
    pooled: Mapping[str, float] | None = None,
) -> list[str]:
    """Formats the scores of a run next to the published figures, with both protocols and the notes.

    The comparison states differences and does not judge them.

    Args:
        recipe: recipe of the run.
        obtained: scores by name, as fractions.
        protocol: name of the protocol of the run, never ``auto``.
        labels: name of the label set of the run.
        frozen: True if no encoder was fine-tuned.
        corpus: corpus of the run; empty for that of the recipe.
        changed: fields that differ from the recipe, each as ``field=value``.
        streams: role -> stream of the run; None for those of the recipe.
        only: options that leave out utterances.
        pooled: scores over all folds together; needed if the paper averages folds weighted by their sizes.

    Returns:
        Lines to print.
    """
    features = "frozen features" if frozen else "fine-tuned encoders"
    published = recipe.published
    variant = published.matching_variant(changed, recipe.streams if streams is None else streams)
    run = f"{corpus or recipe.corpus}, {features}, protocol {protocol}, labels {labels}"
    differences = [*changed, *_changed_data(recipe, protocol, labels, streams or {}), *only]
    run += f", NOT the recipe: {', '.join(differences)}" if differences else ""
    run += f", published as {variant.what!r}" if variant else ""
    rows = [
        ("", *METRICS, ""),
        ("obtained", *_cells(obtained), run),
        *_pooled_row(published, pooled or {}),
        *(
            (
                f"published: {figure.what}",
                *_cells(figure.scores),
                figure.status + (VARIANT_MARK if figure is variant else ""),
            )
            for figure in published.figures
        ),
    ]
    return [
        *_aligned(rows),
        *_origin(published),
        f"protocol of this run: {describe_protocol(protocol)}",
        *(f"note: {note}" for note in published.notes),
    ]


def published_table(recipe: Recipe, format_fields: Callable[[Mapping[str, object]], str]) -> list[str]:
    """Formats the published figures of a system and of its variants.

    Args:
        recipe: recipe of the system.
        format_fields: function that formats the fields of a variant.

    Returns:
        Lines to print.
    """
    published = recipe.published
    rows = [
        (
            f"published: {figure.what}",
            *_cells(figure.scores),
            f"{figure.status}: {_configuration(figure, format_fields)}",
        )
        for figure in published.figures
    ]
    return [*_aligned([("", *METRICS, ""), *rows]), *_origin(published)]


def _pooled_row(published: Published, pooled: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Returns the row with the index of a paper that weights folds by their sizes; none for other papers."""
    if not published.pooled or "wa" not in pooled:
        return []
    weighted = {"wa": pooled["wa"]}
    return [("obtained, pooled", *_cells(weighted), "the index of the paper: folds weighted by their sizes (B-14)")]


def _changed_data(recipe: Recipe, protocol: str, labels: str, streams: Mapping[str, str]) -> list[str]:
    """Returns protocol, labels and streams of a run that differ from the recipe, each as ``name=value``."""
    pairs = {"protocol": (recipe.protocol, protocol), "labels": (recipe.labels, labels)}
    pairs |= {role: (stream, streams.get(role, stream)) for role, stream in recipe.streams.items()}
    return [f"{name}={actual}" for name, (expected, actual) in pairs.items() if actual != expected]


def _configuration(figure: Figure, format_fields: Callable[[Mapping[str, object]], str]) -> str:
    """Returns a text with the configuration of mmer that a figure corresponds to."""
    if figure.head:
        return f"head {figure.head}"
    return format_fields(figure.change) if figure.change else "the recipe"


def _origin(published: Published) -> list[str]:
    return [f"paper: {published.paper}", f"protocol of the paper: {published.protocol}"]


def _cells(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores[name]:.4f}" if name in scores else "-" for name in METRICS]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Formats rows as lines: the first column to the left, scores to the right."""
    width = max(len(row[0]) for row in rows)
    return ["  ".join([row[0].ljust(width), *(cell.rjust(6) for cell in row[1:-1]), row[-1]]).rstrip() for row in rows]
