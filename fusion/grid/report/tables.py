"""Tables of a grid for users: ranking, folds, rows of LaTeX, and the lines that say how to read the scores."""

import re
from collections.abc import Mapping, Sequence

from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import Score, Task
from fusion.grid.combinations import ModelScores, fields_text
from fusion.grid.selection import (
    Ranked,
    Spread,
    fold_winners,
    nested_scores,
    shows_unselected_tests,
    single_best,
    tied_with_best,
    tied_with_winners,
)
from fusion.run.latex import latex_row
from fusion.run.score_table import definitions

MISSING = "-"
REASON_LETTERS = 48  # of a reason in a table; the CSV file has the whole reason
NESTED = "the grid's result: each fold's winner is chosen on its own dev and scored on its own test"
NOT_NESTED = "not nested: the dev parts of other folds may hold this fold's test speakers"
TIE_BREAK = "the lowest loss on dev decides, then the order of the grid"
SHOWN_TIES = 3  # combinations that a line on a tie names
ONE_FOLD = "there is one fold, whose winner this is"
ALL_TESTS = "tests of combinations that were not chosen are shown; choosing by them would be choosing on test"
Table = tuple[list[str], list[list[object]]]  # header and rows
Entries = Mapping[tuple[int, str, int], str]  # combination, fold and seed -> name of an entry of the journal
NO_ENTRIES: Entries = {}


def nested_latex(results: Mapping[str, object], nested: Spread) -> str:
    """Formats the nested scores of a grid as a row of LaTeX, as `fusion.run.latex.latex_row` does for a run.

    Args:
        results: head, streams, protocol, task and interval of the grid.
        nested: its nested scores.
    """
    scores = {"mean": nested.mean, "std": nested.std, "std_seeds": nested.std_seeds}
    return latex_row({**results, **scores, "fusion": f"{results['fusion']}, nested"})


def grid_table(
    ranked: Sequence[Ranked], axes: Sequence[str], winners: Mapping[str, int], task: Task = CLASSIFICATION
) -> Table:
    """Formats the ranking, best first; it has test columns if all tests of a combination are open.

    Args:
        ranked: the combinations.
        axes: names of the axes.
        winners: index of the winning combination, by fold.
        task: task of the grid.
    """
    subsets = ("dev", "test") if any(combination.test for combination in ranked) else ("dev",)
    header = ["rank", *axes, *(f"{subset} {score.title}" for subset in subsets for score in task.scores), "notes"]
    rows: list[list[object]] = [
        [
            combination.rank or MISSING,
            *map(combination.text, axes),
            *(spread_text(getattr(combination, subset), score) for subset in subsets for score in task.scores),
            _notes(combination, winners),
        ]
        for combination in ranked
    ]
    return header, rows


def fold_table(
    ranked: Sequence[Ranked],
    scores: Sequence[ModelScores],
    winners: Mapping[str, int],
    task: Task = CLASSIFICATION,
    entries: Entries = NO_ENTRIES,
) -> Table:
    """Formats the winner of each fold with its dev and test scores; the last row has the nested scores.

    Args:
        ranked: the combinations.
        scores: scores of their models.
        winners: index of the winning combination, by fold.
        task: task of the grid.
        entries: combination, fold and seed -> name of the model's entry in the journal; no column without any.
    """
    fields = {combination.combination: combination.fields for combination in ranked}
    header = ["fold", "winner", *(f"{subset} {score.title}" for subset in ("dev", "test") for score in task.scores)]
    rows: list[list[object]] = [
        [winner.fold, fields_text(fields[winner.combination]), *_texts(winner.dev, task), *_texts(winner.test, task)]
        for winner in fold_winners(scores, winners)
    ]
    nested = nested_scores(scores, winners, task)
    rows.append(["nested", "", *[""] * len(task.scores), *(spread_text(nested, score) for score in task.scores)])
    if not entries:
        return header, rows
    names = [
        " ".join(entry for (index, name, _), entry in entries.items() if (index, name) == (winner, fold))
        for fold, winner in winners.items()
    ]
    return [*header, "journal"], [[*row, name] for row, name in zip(rows, [*names, ""], strict=True)]


def summary_lines(
    ranked: Sequence[Ranked],
    scores: Sequence[ModelScores],
    winners: Mapping[str, int],
    task: Task = CLASSIFICATION,
    monitor: str = "",
) -> list[str]:
    """Formats the lines below the tables: nested scores, best combination, the limits of both, and ties.

    Args:
        ranked: the combinations.
        scores: scores of their models.
        winners: index of the winning combination, by fold.
        task: task of the grid.
        monitor: name of the dev score that selects; that of the task by default.
    """
    nested = nested_scores(scores, winners, task)
    lines = [f"nested: test {_scores_text(nested, task)} over {count_text(len(winners), 'fold')}; {NESTED}"]
    best = single_best(ranked)
    if best and best.dev:
        test = f", test {_scores_text(best.test, task)}" if best.test else ""
        caveat = NOT_NESTED if len(winners) > 1 else ONE_FOLD
        dev = _scores_text(best.dev, task)
        lines.append(f"best by mean dev: {fields_text(best.fields)}, dev {dev}{test}; {caveat}")
    lines += tie_lines(ranked, scores, winners, task, monitor or task.monitors[0])
    if shows_unselected_tests(scores, winners):
        lines.append(ALL_TESTS)
    return lines


def tie_lines(
    ranked: Sequence[Ranked], scores: Sequence[ModelScores], winners: Mapping[str, int], task: Task, monitor: str
) -> list[str]:
    """Formats a line on combinations that dev cannot tell apart, over all folds and on each fold.

    The arguments are those of `summary_lines`.
    """
    title, lines = task.score(monitor).title, []
    if tied := tied_with_best(ranked, monitor, task):
        names = [fields_text(row.fields) for row in tied]
        more = f" and {len(names) - SHOWN_TIES} more" if len(names) > SHOWN_TIES else ""
        shown = "; ".join(names[:SHOWN_TIES]) + more
        lines.append(f"tie: {len(names)} combinations have the best mean dev {title} ({shown}); {TIE_BREAK}")
    if by_fold := tied_with_winners(scores, winners, monitor, task):
        counts = ", ".join(f"{len(equal)} on fold {fold}" for fold, equal in by_fold.items())
        lines.append(f"tie: combinations with the best dev {title}: {counts}; {TIE_BREAK}")
    return lines


def legend(nested: Spread, task: Task = CLASSIFICATION) -> str:
    """Formats the definitions of the scores, and what the deviation of the nested scores is over."""
    deviation = over(nested)
    return definitions(task) + (f"; ± is the standard deviation over {deviation}" if deviation else "")


def spread_text(scores: Spread | None, score: Score) -> str:
    """Formats mean and standard deviation of a score as papers do, over folds, or over seeds of a single fold.

    Example:
        >>> wa = Score(name="wa", title="WA")
        >>> spread_text(Spread(mean={"wa": 0.5734}, std={"wa": 0.012}), wa), spread_text(None, wa)
        ('57.34 ± 1.20', '-')
    """
    if scores is None or score.name not in scores.mean:
        return MISSING
    deviation = scores.deviation(score.name)
    return score.text(scores.mean[score.name]) + ("" if deviation is None else f" ± {score.text(deviation)}")


def over(scores: Spread) -> str:
    """Returns what the standard deviation of scores is over; empty without one.

    Example:
        >>> over(Spread(mean={"wa": 0.5}, std={"wa": None}, std_seeds={"wa": 0.1}))
        'seeds'
    """
    for name, values in (("folds", scores.std), ("seeds", scores.std_seeds)):
        if any(value is not None for value in values.values()):
            return name
    return ""


def short_reason(reason: str) -> str:
    """Shortens the reason of a failure.

    Example:
        >>> short_reason("the loss total is nan in batch 7 of epoch 3")
        'diverged in epoch 3'
        >>> short_reason("cpu is out of memory; lower --batch-size (32)")
        'cpu is out of memory'
    """
    diverged = re.search(r"\b(?:nan|inf)\b.* epoch (\d+)", reason)
    if diverged:
        return f"diverged in epoch {diverged[1]}"
    first = " ".join(reason.split(";", maxsplit=1)[0].split())
    return first if len(first) <= REASON_LETTERS else f"{first[: REASON_LETTERS - 3].rstrip()}..."


def failure_text(combination: Ranked) -> str:
    """Formats the missing or failed models of a combination, empty for a complete one.

    The text has the first reason of a failure, and the number of models unless all failed.
    """
    if combination.complete:
        return ""
    if not combination.failures:
        return f"{combination.models} of {combination.expected} trained"
    reason = short_reason(combination.failure)
    if combination.failures == combination.expected:
        return reason
    return f"{combination.failures} of {combination.expected} failed: {reason}"


def folds_won(combination: int, winners: Mapping[str, int]) -> list[str]:
    """Lists the folds that a combination wins."""
    return [fold for fold, index in winners.items() if index == combination]


def count_text(count: int, noun: str) -> str:
    """Formats a count with its noun.

    Example:
        >>> count_text(1, "fold"), count_text(2, "fold")
        ('1 fold', '2 folds')
    """
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _notes(combination: Ranked, winners: Mapping[str, int]) -> str:
    folds = folds_won(combination.combination, winners)
    wins = f"wins fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}" if folds else ""
    best = "best by mean dev" if combination.rank == 1 else ""
    return "; ".join(note for note in (best, wins, failure_text(combination)) if note)


def _scores_text(scores: Spread, task: Task) -> str:
    return ", ".join(f"{score.title} {spread_text(scores, score)}" for score in task.scores)


def _texts(scores: Mapping[str, float] | None, task: Task) -> list[str]:
    return [score.text((scores or {}).get(score.name)) for score in task.scores]
