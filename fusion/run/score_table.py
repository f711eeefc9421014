"""Tables of scores for people: rows of models and of all of them, definitions, scores of each class; and results.md."""

from collections.abc import Iterator, Sequence
from typing import Any

from fusion.evaluation.catalog import task_of
from fusion.evaluation.task import Score, Task
from fusion.fingerprint import Plain
from fusion.protocols.catalog import protocol_words

COLUMNS = ("fold", "seed", "epoch", "train", "dev", "test")
# Key in results.json -> title of its row. A spread that does not exist, of a single fold or seed, has no row.
OVER_ALL: Plain = {
    "mean": "mean",
    "std": "std over folds",
    "std_seeds": "std over seeds",
    "pooled": "pooled",
    "interval": "95% of pooled",
}
SPREADS = ("std", "std_seeds")
REFERENCE = "reference"  # key in results.json of the scores of another head on the same streams and folds
CROSS = "cross"  # key in results.json of the scores on other corpora
OF_REFERENCE = ("mean", "pooled", "interval")  # its rows
PER_CLASS: Plain = {"recall": "recall", "f1": "F1"}  # key in results.json -> name


def score_header(results: Plain) -> list[str]:
    """Returns the header of `score_table`.

    Example:
        >>> " ".join(score_header({}))
        'fold seed epoch train dev test WA UA W-F1 M-F1'
    """
    return [*COLUMNS, *(score.title for score in task_of(results).scores)]


def score_table(results: Plain) -> list[list[object]]:
    """Returns the rows below `score_header`.

    There is a row for each model, then for each of several test subsets, then mean, standard deviation over folds and
    over seeds where there are several, pooled scores and their interval. Rows of a reference follow.
    """
    task = task_of(results)
    rows: list[list[object]] = [
        [
            fold["fold"],
            fold["seed"],
            fold["epoch"],
            fold["train"],
            fold["dev"],
            fold["test"] if fold["test"] == fold["test_of"] else f"{fold['test']} of {fold['test_of']}",
            *(score.text(fold[score.name]) for score in task.scores),
        ]
        for fold in results["folds"]
    ]
    for part, scores in results.get("tests", {}).items():
        rows.append([part, "", "", "", "", scores["test"], *(score.text(scores[score.name]) for score in task.scores)])
    for name, title in OVER_ALL.items():
        values = results.get(name, {})
        if name not in SPREADS or any(value is not None for value in values.values()):
            rows.append([title, "", "", "", "", "", *(_cell(values[score.name], score) for score in task.scores)])
    return [*rows, *reference_rows(results)]


def reference_rows(results: Plain) -> list[list[object]]:
    """Returns the rows of the reference of a run for the table of scores, none without a reference.

    Example:
        >>> scores = {"wa": 0.5, "ua": 0.5, "wf1": 0.5, "mf1": 0.5}
        >>> reference = {"fusion": "probe", "mean": scores, "pooled": scores}
        >>> ends = {name: [0.4, 0.6] for name in scores}
        >>> reference_rows({"reference": {**reference, "interval": ends}})[2]
        ['probe 95% of pooled', '', '', '', '', '', '40.00-60.00', '40.00-60.00', '40.00-60.00', '40.00-60.00']
    """
    if REFERENCE not in results:
        return []
    task, found = task_of(results), results[REFERENCE]
    return [
        [
            f"{found['fusion']} {OVER_ALL[name]}",
            *[""] * (len(COLUMNS) - 1),
            *(_cell(found[name][score.name], score) for score in task.scores),
        ]
        for name in OF_REFERENCE
    ]


def protocol_text(results: Plain) -> str:
    """Returns the protocol of a run or grid as its name with its words, where older versions did not write them too.

    Example:
        >>> protocol_text({"protocol": "session", "notes": ["session: leave one session out: test shares no speaker"]})
        'session (leave one session out)'
    """
    name = str(results["protocol"])
    words = results.get("protocol_name") or protocol_words(name, map(str, results.get("notes", ())))
    return name if words == name else f"{name} ({words})"


def definitions(task: Task) -> str:
    """Formats what the scores of a task are, in one line.

    Example:
        >>> from fusion.evaluation.classes import CLASSIFICATION
        >>> from fusion.evaluation.ratings import DIMENSIONS
        >>> definitions(CLASSIFICATION)
        'WA accuracy, UA mean recall of the classes, W-F1 weighted F1, M-F1 macro F1; in percent'
        >>> definitions(DIMENSIONS)
        'CCC concordance correlation coefficient, MAE mean absolute error, Pearson correlation coefficient'
    """
    percent = [f"{score.title} {score.meaning}" for score in task.scores if score.in_percent]
    plain = [f"{score.title} {score.meaning}" for score in task.scores if not score.in_percent]
    groups = [", ".join(percent) + "; in percent"] if percent else []
    return "; ".join([*groups, *([", ".join(plain)] if plain else [])])


def detail_lines(results: Plain) -> list[str]:
    """Formats recall and F1 of each class, or the agreement in each dimension, over all test subsets and seeds.

    Example:
        >>> detail_lines({"recall": {"angry": 0.75, "sad": 0.5}, "f1": {"angry": 0.7, "sad": 0.6}})
        ['recall: angry 75.00, sad 50.00', 'F1: angry 70.00, sad 60.00']
        >>> scores = {"ccc": 0.5, "mae": 0.75, "pearson": 0.6}
        >>> detail_lines({"dimensions": {"valence": {"pooled": scores, "interval": {"ccc": [0.4, 0.6]}}}})
        ['valence: CCC 0.500 (95% 0.400 to 0.600), MAE 0.750, Pearson 0.600']
    """
    if "dimensions" not in results:
        return [
            f"{title}: {', '.join(f'{name} {percent(value)}' for name, value in results[key].items())}"
            for key, title in PER_CLASS.items()
            if key in results
        ]
    lines = []
    for name, found in results["dimensions"].items():
        pooled, ends = found["pooled"], found["interval"]["ccc"]
        interval = f" (95% {ends[0]:.3f} to {ends[1]:.3f})" if ends else ""
        lines.append(
            f"{name}: CCC {pooled['ccc']:.3f}{interval}, MAE {pooled['mae']:.3f}, Pearson {pooled['pearson']:.3f}"
        )
    return ["; ".join(lines)]


def percent(value: float) -> str:
    """Formats a score in percent with two decimals, as papers do.

    Example:
        >>> percent(0.57345)
        '57.34'
    """
    return f"{100 * value:.2f}"


def markdown(results: Plain) -> str:
    """Formats the results of a run as a page, the content of ``results.md``.

    Args:
        results: results of a run, as in ``results.json``.
    """
    task = task_of(results)
    streams = ", ".join(f"{role} {name}" for role, name in results.get("streams", {}).items())
    title = f"# {results['fusion']} on {results['corpus']}, protocol {protocol_text(results)}"
    lines = [title, "", *([f"Streams: {streams}.", ""] if streams else [])]
    lines += [*_markdown_table(score_header(results), score_table(results)), "", f"{definitions(task)}."]
    if "recall" in results:
        rows = [
            [name, *(percent(results[key][name]) for key in PER_CLASS if key in results)] for name in results["recall"]
        ]
        header = ["class", *(title for key, title in PER_CLASS.items() if key in results)]
        lines += ["", *_markdown_table(header, rows)]
    else:
        lines += ["", *detail_lines(results)]
    for cross in results.get(CROSS, ()):
        scores = ", ".join(f"{score.title} {score.text(cross['mean'][score.name])}" for score in task.scores)
        lines += ["", f"On {cross['name']} ({cross['test']} utterances, mean over the models): {scores}."]
    lines += ["", *(f"- {_plain(note)}" for note in [*results["notes"], *results.get("comparison", ())])]
    return "\n".join([*lines, ""])


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_escaped, header))} |"
    yield f"| {' | '.join(['---', *['---:'] * (len(header) - 1)])} |"
    for row in rows:
        yield f"| {' | '.join(map(_escaped, row))} |"


def _plain(text: object) -> str:
    """Returns a text on one line: a line break in a name would end a row or an item."""
    return " ".join(str(text).split())


def _escaped(cell: object) -> str:
    return _plain(cell).replace("|", r"\|")


def _cell(value: Any, score: Score) -> str:
    return "-".join(map(score.text, value)) if isinstance(value, (list, tuple)) else score.text(value)
