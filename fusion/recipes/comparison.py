"""Comparison of a run of a recipe with the published figures, as lines to print."""

from collections.abc import Callable, Mapping, Sequence

from fusion.evaluation.classes import CLASSIFICATION
from fusion.protocols.catalog import describe_protocol
from fusion.recipes.catalog import Recipe
from fusion.recipes.matching import SECOND_STAGE, Match, RunFacts, differences, match_figure, match_sum
from fusion.recipes.published import Figure, Published, Recalls

VARIANT_MARK = ", the variant run here"
UNLIKE = "not like for like: "
STREAM = "stream."  # prefix of a role
SUM = "the sum of the logits of two runs of the recipe"


def compare_with_published(
    recipe: Recipe,
    obtained: Mapping[str, float],
    run: RunFacts,
    *,
    recall: Mapping[str, float] | None = None,
    pooled: Mapping[str, float] | None = None,
) -> list[str]:
    """Formats the scores of a run next to the published figures, with both protocols and the notes.

    The comparison states differences and does not judge them.

    Args:
        recipe: recipe of the run.
        obtained: scores by name, as fractions.
        run: facts of the run.
        recall: recall of each class by name, as fractions; None if it is not known.
        pooled: scores over all folds together; needed if the paper averages folds weighted by their sizes.

    Returns:
        Lines to print.
    """
    match = match_figure(recipe.published, run)
    changed = [*run.changed, *_changed_data(recipe, run), *run.only]
    text = f", NOT the recipe: {', '.join(changed)}" if changed else ""
    text += f", published as {match.figure.what!r}" if match else ""
    text += f" but for {', '.join(match.but)}" if match and match.but else ""
    return _lines(recipe, obtained, run, text, match=match, recall=recall, pooled=pooled)


def compare_sum_with_published(
    recipe: Recipe, obtained: Mapping[str, float], run: RunFacts, parts: Sequence[RunFacts]
) -> list[str]:
    """Formats the scores of a sum of logits next to the published figures, as `compare_with_published` does.

    Args:
        recipe: recipe of the runs that are added up.
        obtained: scores by name, as fractions.
        run: facts of the sum, with the streams of all its runs.
        parts: facts of these runs.

    Returns:
        Lines to print; none if the sum is not the score fusion of the recipe's paper.
    """
    figure = match_sum(recipe.published, parts)
    if figure is None:
        return []
    text = f", {SUM}, published as {figure.what!r}"
    return _lines(recipe, obtained, run, text, match=Match(figure=figure))


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
    return [*aligned([("", *(score.title for score in CLASSIFICATION.scores), ""), *rows]), *_origin(published)]


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Formats rows as lines: the first column to the left, scores to the right."""
    width = max(len(row[0]) for row in rows)
    widths = [max(6, *(len(row[column]) for row in rows)) for column in range(1, len(rows[0]) - 1)]
    return [
        "  ".join(
            [row[0].ljust(width), *(cell.rjust(size) for cell, size in zip(row[1:-1], widths, strict=True)), row[-1]]
        ).rstrip()
        for row in rows
    ]


def _lines(
    recipe: Recipe,
    obtained: Mapping[str, float],
    run: RunFacts,
    text: str,
    *,
    match: Match | None,
    recall: Mapping[str, float] | None = None,
    pooled: Mapping[str, float] | None = None,
) -> list[str]:
    published = recipe.published
    features = "frozen features" if run.frozen else "fine-tuned encoders"
    described = f"{run.corpus or recipe.corpus}, {features}, protocol {run.protocol}, labels {run.labels}{text}"
    rows = [
        ("", *(score.title for score in CLASSIFICATION.scores), ""),
        ("obtained", *_cells(obtained), described),
        *_pooled_row(published, pooled or {}),
        *(
            (f"published: {figure.what}", *_cells(figure.scores), _remark(published, figure, run, match))
            for figure in published.figures
        ),
    ]
    return [
        *aligned(rows),
        *(_recall_table(published.recalls, recall) if recall else []),
        *_origin(published),
        f"protocol of this run: {run.promise or describe_protocol(run.protocol)}",
        *(f"note: {note}" for note in published.notes),
    ]


def _pooled_row(published: Published, pooled: Mapping[str, float]) -> list[tuple[str, ...]]:
    """Returns the row with the index of a paper that weights folds by their sizes; none for other papers."""
    if not published.pooled or "wa" not in pooled:
        return []
    weighted = {"wa": pooled["wa"]}
    return [("obtained, pooled", *_cells(weighted), "the index of the paper: folds weighted by their sizes (B-14)")]


def _remark(published: Published, figure: Figure, run: RunFacts, match: Match | None) -> str:
    """Returns the status of a figure, why it is not like for like, and whether it is the variant of the run."""
    reasons = differences(published, figure, run.streams)
    text = figure.status + (f"; {UNLIKE}{', '.join(reasons)}" if reasons else "")
    return text + (VARIANT_MARK if match and figure is match.figure else "")


def _recall_table(printed: Sequence[Recalls], recall: Mapping[str, float]) -> list[str]:
    """Formats printed recalls below the obtained ones, in percent; a printed recall without a value is a dash."""
    if not printed:
        return []
    classes = list(dict.fromkeys([*recall, *(name for row in printed for name in row.by_class)]))
    rows = [
        ("recall of each class", *classes, ""),
        ("obtained", *_percents(recall, classes), ""),
        *((f"published: {row.what}", *_percents(row.by_class, classes), row.remark) for row in printed),
    ]
    return aligned(rows)


def _percents(recall: Mapping[str, float], classes: Sequence[str]) -> list[str]:
    return [f"{100 * recall[name]:.2f}" if name in recall else "-" for name in classes]


def _changed_data(recipe: Recipe, run: RunFacts) -> list[str]:
    """Returns protocol, labels and streams of a run that differ from the recipe, each as ``name=value``."""
    pairs = {"protocol": (recipe.protocol, run.protocol), "labels": (recipe.labels, run.labels)}
    names = {role: stream.name for role, stream in run.streams.items()}
    pairs |= {role: (stream, names.get(role, stream)) for role, stream in recipe.streams.items()}
    return [f"{name}={actual}" for name, (expected, actual) in pairs.items() if actual != expected]


def _configuration(figure: Figure, format_fields: Callable[[Mapping[str, object]], str]) -> str:
    """Returns a text with the configuration of mmer that a figure corresponds to."""
    if figure.head:
        return f"head {figure.head} over two runs of the recipe"
    fields = {**figure.change, **{f"{STREAM}{role}": name for role, name in figure.streams.items()}}
    text = format_fields(fields) if fields else "the recipe"
    return f"{text}, with {SECOND_STAGE}" if figure.second_stage else text


def _origin(published: Published) -> list[str]:
    return [f"paper: {published.paper}", f"protocol of the paper: {published.protocol}"]


def _cells(scores: Mapping[str, float]) -> list[str]:
    """Formats scores in percent; a missing one is a dash."""
    return [score.text(scores.get(score.name)) for score in CLASSIFICATION.scores]
