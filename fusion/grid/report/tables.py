"""What a grid says to people: its tables, and the sentences that must not be left out.

Rows of a LaTeX table, and text that LaTeX takes as it is.
"""

import re
from collections.abc import Mapping, Sequence

from fusion.evaluation.task import CLASSIFICATION, Score, Task
from fusion.grid.combinations import ModelScores, fields_text
from fusion.grid.selection import Ranked, Spread, fold_winners, nested, shows_unchosen, single_best
from fusion.run.results import latex_row

NOTHING = "-"
SHOWN = 48  # letters of a reason in a table; the CSV has all of it
NESTED = "the grid's result: each fold's winner is chosen on its own dev and scored on its own test"
NOT_NESTED = "not nested: the dev parts of other folds may hold this fold's test speakers"
ONE_FOLD = "there is one fold, whose winner this is"
ALL_TESTS = "tests of combinations that were not chosen are shown; choosing by them would be choosing on test"
Table = tuple[list[str], list[list[object]]]


def latex_rows(name: str, ranked: Sequence[Ranked], nested: Spread, task: Task = CLASSIFICATION) -> list[str]:
    """Gives rows of scores: the nested score, then dev and open tests of each combination that is complete.

    Args:
        name: of the head.
        ranked: the combinations.
        nested: the result of the grid.
        task: task of the grid.
    """
    rows = [_row(f"{name}, nested", nested, task)]
    for one in ranked:
        if one.complete and one.dev:
            rows.append(_row(f"{fields_text(one.fields)}, dev", one.dev, task))
        if one.complete and one.test:
            rows.append(_row(f"{fields_text(one.fields)}, test", one.test, task))
    return rows


def grid_table(
    ranked: Sequence[Ranked], axes: Sequence[str], winners: Mapping[str, int], task: Task = CLASSIFICATION
) -> Table:
    """Gives header and rows of the ranking, best first; test columns are there if the tests of a combination are open.

    Args:
        ranked: the combinations.
        axes: of the grid.
        winners: the place of the winning combination, by fold.
        task: task of the grid.
    """
    parts = ("dev", "test") if any(one.test for one in ranked) else ("dev",)
    header = ["rank", *axes, *(f"{part} {score.title}" for part in parts for score in task.scores), "notes"]
    rows: list[list[object]] = [
        [
            one.rank or NOTHING,
            *map(one.text, axes),
            *(spread_text(getattr(one, part), score) for part in parts for score in task.scores),
            _notes(one, winners),
        ]
        for one in ranked
    ]
    return header, rows


def fold_table(
    ranked: Sequence[Ranked],
    results: Sequence[ModelScores],
    winners: Mapping[str, int],
    task: Task = CLASSIFICATION,
) -> Table:
    """Gives header and rows of the folds: the winner of each, its dev and its test; the nested score below."""
    fields = {one.combination: one.fields for one in ranked}
    header = ["fold", "winner", *(f"{part} {score.title}" for part in ("dev", "test") for score in task.scores)]
    rows: list[list[object]] = [
        [one.fold, fields_text(fields[one.combination]), *_texts(one.dev, task), *_texts(one.test, task)]
        for one in fold_winners(results, winners)
    ]
    result = nested(results, winners, task)
    rows.append(["nested", "", *[""] * len(task.scores), *(spread_text(result, score) for score in task.scores)])
    return header, rows


def sentences(
    ranked: Sequence[Ranked],
    results: Sequence[ModelScores],
    winners: Mapping[str, int],
    task: Task = CLASSIFICATION,
) -> list[str]:
    """Gives what is to be printed below the tables: the nested score, the single best, and what not to do with them."""
    score = nested(results, winners, task)
    lines = [f"nested: test {_in_words(score, task)} over {counted(len(winners), 'fold')}; {NESTED}"]
    best = single_best(ranked)
    if best and best.dev:
        test = f", test {_in_words(best.test, task)}" if best.test else ""
        caveat = NOT_NESTED if len(winners) > 1 else ONE_FOLD
        lines.append(f"best by mean dev: {fields_text(best.fields)}, dev {_in_words(best.dev, task)}{test}; {caveat}")
    if shows_unchosen(results, winners):
        lines.append(ALL_TESTS)
    return lines


def spread_text(scores: Spread | None, score: Score) -> str:
    """Writes mean and standard deviation of a score the way papers do.

    Example:
        >>> wa = Score(name="wa", title="WA")
        >>> spread_text(Spread(mean={"wa": 0.5734}, std={"wa": 0.012}), wa), spread_text(None, wa)
        ('57.34 ± 1.20', '-')
    """
    if scores is None or score.name not in scores.mean:
        return NOTHING
    deviation = scores.std[score.name]
    return score.text(scores.mean[score.name]) + ("" if deviation is None else f" ± {score.text(deviation)}")


def brief(reason: str) -> str:
    """Says in a few words why a model failed.

    Example:
        >>> brief("the loss total is nan in batch 7 of epoch 3")
        'diverged in epoch 3'
        >>> brief("cpu is out of memory; lower --batch-size (32)")
        'cpu is out of memory'
    """
    diverged = re.search(r"\b(?:nan|inf)\b.* epoch (\d+)", reason)
    if diverged:
        return f"diverged in epoch {diverged[1]}"
    first = " ".join(reason.split(";", maxsplit=1)[0].split())
    return first if len(first) <= SHOWN else f"{first[: SHOWN - 3].rstrip()}..."


def failure_text(one: Ranked) -> str:
    """Says what a combination lacks, empty where it lacks nothing.

    Of a combination that failed everywhere, why; of others, how many of its models are there.
    """
    if one.complete:
        return ""
    if not one.failures:
        return f"{one.models} of {one.of} trained"
    many = "" if one.failures == one.of else f"{one.failures} of {one.of} failed: "
    return f"{many}{brief(one.failure)}"


def wins_of(combination: int, winners: Mapping[str, int]) -> list[str]:
    """Names the folds that a combination wins."""
    return [fold for fold, place in winners.items() if place == combination]


def counted(count: int, what: str) -> str:
    """Writes how many there are.

    Example:
        >>> counted(1, "fold"), counted(2, "fold")
        ('1 fold', '2 folds')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def _row(name: str, scores: Spread, task: Task) -> str:
    return latex_row({"fusion": name, "task": task.name, "mean": scores.mean, "std": scores.std})


def _notes(one: Ranked, winners: Mapping[str, int]) -> str:
    wins = wins_of(one.combination, winners)
    won = f"wins fold{'s' if len(wins) > 1 else ''} {', '.join(wins)}" if wins else ""
    best = "best by mean dev" if one.rank == 1 else ""
    return "; ".join(part for part in (best, won, failure_text(one)) if part)


def _in_words(scores: Spread, task: Task) -> str:
    return ", ".join(f"{score.title} {spread_text(scores, score)}" for score in task.scores)


def _texts(scores: Mapping[str, float] | None, task: Task) -> list[str]:
    return [score.text((scores or {}).get(score.name)) for score in task.scores]
