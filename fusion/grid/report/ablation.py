"""Ablation: the change of each combination, its difference to the first one with an interval; the table of all."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from fusion.evaluation.classes import CLASSIFICATION
from fusion.evaluation.task import Score, Task
from fusion.grid.combinations import FieldValues, ModelScores, fields_text, value_text
from fusion.grid.report.tables import ALL_TESTS, MISSING, failure_text, over, spread_text
from fusion.grid.selection import UNSET, Ranked, Spread
from fusion.pictures.changes import Change
from fusion.run.folder import Folder
from fusion.run.latex import SIGNS, escape_latex

ABLATION_MD, ABLATION_TEX = "ablation.md", "ablation.tex"
BASE = "base"
PLUS_MINUS = " ± "
CLOSED = "The tests of combinations that were not chosen are closed."


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """A combination in comparison with the base.

    Attributes:
        change: fields that differ from the base, as on the command line; empty for the base.
        lack: missing or failed models, empty where all models are trained.
        dev: dev scores, None without a trained model.
        test: test scores; None unless the test subsets of all models are open.
        gain: mean minus mean of the base by metric, in points; None for the base, and if a model of either is missing.
    """

    change: str
    lack: str
    dev: Spread | None
    test: Spread | None
    gain: Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """An ablation table.

    Attributes:
        title: head, corpus, protocol, labels, seeds and folds.
        base: name of the first row.
        fields: fields of the base.
        rows: rows in the order of the grid, the base first.
        shown: subsets with columns: ``dev``, or ``dev`` and ``test``.
        compared: subset of the differences, ``dev`` or ``test``.
        task: task of the grid.
    """

    title: str
    base: str
    fields: FieldValues
    rows: tuple[AblationRow, ...]
    shown: tuple[str, ...]
    compared: str
    task: Task = CLASSIFICATION

    @property
    def caption(self) -> tuple[str, ...]:
        """Sentences below the table: title, scores, differences, and the tests that are shown."""
        spreads = [over(scores) for row in self.rows for scores in (row.dev, row.test) if scores]
        deviation = next((f" ± standard deviation over {name}" for name in spreads if name), "")
        measured = f"Mean{deviation}, on {' and '.join(self.shown)}."
        compared = f"Δ: difference to the first row ({fields_text(self.fields)}) on {self.compared}, in points."
        return tuple(text for text in (f"{self.title}.", measured, compared, self._tests) if text)

    @property
    def _tests(self) -> str:
        """Sentence about the tests that are shown, empty for a single combination."""
        if self.compared != "test":
            return CLOSED
        single = sum(not row.lack for row in self.rows) < 2
        return "" if single else f"{ALL_TESTS[0].upper()}{ALL_TESTS[1:]}."


def ablation_table(ranked: Sequence[Ranked], title: str, *, base: str = BASE, task: Task = CLASSIFICATION) -> Ablation:
    """Compares all combinations with the first of the grid.

    Differences are of test scores if the tests of all complete combinations are open, else of dev scores.

    Args:
        ranked: the combinations, at least one.
        title: title of the table.
        base: name of the first combination, such as ``as published``.
        task: task of the grid.
    """
    ordered = sorted(ranked, key=lambda combination: combination.combination)
    complete = [combination for combination in ordered if combination.complete]
    compared = "test" if complete and all(combination.test for combination in complete) else "dev"
    first = ordered[0]
    rows = tuple(
        AblationRow(
            change=_change(combination.fields, first.fields) if combination is not first else "",
            lack=failure_text(combination),
            dev=combination.dev,
            test=combination.test,
            gain=_gain(combination, first, compared, task) if combination is not first else None,
        )
        for combination in ordered
    )
    shown = ("dev", "test") if any(combination.test for combination in ordered) else ("dev",)
    return Ablation(title=title, base=base, fields=first.fields, rows=rows, shown=shown, compared=compared, task=task)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """The score of a base and of each change to it.

    Attributes:
        base: score of the base, as it is printed.
        changes: changes in the order of the grid.
        paired: whether a change has an interval.
    """

    base: float
    changes: tuple[Change, ...]
    paired: bool


def is_ablation(ranked: Sequence[Ranked], axes: Sequence[str]) -> bool:
    """Checks whether combinations are changes to the first one, and not values of axes that are crossed.

    Changes are made one at a time: most combinations differ from the first in a single axis, while the values of no
    axis are tried under equal settings of the others.

    Args:
        ranked: combinations.
        axes: axes with at least two values.
    """
    if len(axes) < 2 or len(ranked) < 3:
        return False
    ordered = sorted(ranked, key=lambda row: row.combination)
    settings = [tuple(row.text(axis) for axis in axes) for row in ordered]
    changed = [sum(value != other for value, other in zip(row, settings[0], strict=True)) for row in settings[1:]]
    single = sum(count == 1 for count in changed)
    return 2 * single > len(changed) and not any(_is_crossed(settings, index) for index in range(len(axes)))


def changes_to_base(ranked: Sequence[Ranked], scores: Sequence[ModelScores], monitor: str, task: Task) -> Changes:
    """Computes the dev score of the first combination and of all others, with intervals of their differences.

    The interval is that of Student's t over the differences of each fold, each the mean over seeds; of a single fold,
    over the differences of each seed.

    Args:
        ranked: complete combinations.
        scores: scores of their models; without them there are no intervals.
        monitor: name of the dev score.
        task: task of the grid.
    """
    unit = task.score(monitor).unit
    ordered = sorted(ranked, key=lambda row: row.combination)
    by_model = {(model.combination, model.fold, model.seed): model.dev.get(monitor) for model in scores}
    base, *others = ordered
    changes = []
    for row in others:
        assert row.dev is not None
        value = unit * row.dev.mean[monitor]
        differences = [unit * difference for difference in _differences(by_model, row.combination, base.combination)]
        ends = _t_interval(differences)
        shift = value - fmean(differences) if differences else value
        around = None if ends is None else (shift + ends[0], shift + ends[1])
        changes.append(Change(name=_change(row.fields, base.fields), value=value, ends=around))
    assert base.dev is not None
    paired = any(change.ends for change in changes)
    return Changes(base=unit * base.dev.mean[monitor], changes=tuple(changes), paired=paired)


def _differences(by_model: Mapping[tuple[int, str, int], float | None], combination: int, base: int) -> list[float]:
    """Returns the differences of two combinations by fold; of a single fold, by seed."""
    by_fold: dict[str, list[float]] = defaultdict(list)
    for (index, fold, seed), value in by_model.items():
        other = by_model.get((base, fold, seed))
        if index == combination and value is not None and other is not None:
            by_fold[fold].append(value - other)
    if len(by_fold) == 1:
        return next(iter(by_fold.values()))
    return [fmean(values) for values in by_fold.values()]


def _t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Computes the 95% interval of a mean; None for fewer than two values."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return fmean(values) - half, fmean(values) + half


def _is_crossed(settings: Sequence[tuple[str, ...]], index: int) -> bool:
    """Checks whether each value of an axis is tried under the same settings of the other axes."""
    others: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for row in settings:
        others[row[index]].add(row[:index] + row[index + 1 :])
    first, *rest = others.values()
    return all(found == first for found in rest)


def write_ablation(folder: Folder, table: Ablation) -> None:
    """Writes an ablation table as `ABLATION_MD` and `ABLATION_TEX`.

    Raises:
        MmerError: if a file cannot be written.
    """
    for name, text in {ABLATION_MD: as_markdown(table), ABLATION_TEX: as_latex(table)}.items():
        with folder.replacing(name) as path:
            path.write_text(text, encoding="utf-8")


def as_markdown(table: Ablation) -> str:
    """Formats an ablation table in Markdown; the best mean of each column is bold."""
    header = ["change", *(f"{subset} {score.title}" for subset in (*table.shown, "Δ") for score in table.task.scores)]
    rows = [[_name(row, table, "`{}`"), *_cells(row, table, "**{}**")] for row in table.rows]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    title, *others = table.caption
    table_lines = [" | ".join(cell.replace("|", r"\|") for cell in line) for line in lines]
    return "\n".join([f"**{title}** {' '.join(others)}", "", *(f"| {line} |" for line in table_lines), ""])


def as_latex(table: Ablation) -> str:
    """Formats an ablation table in LaTeX with the package booktabs; the best mean of each column is bold."""
    groups = [*table.shown, f"Δ {table.compared}"]
    names = [score.title for _ in groups for score in table.task.scores]
    spans = [rf"\multicolumn{{{len(table.task.scores)}}}{{c}}{{{group}}}" for group in groups]
    rows = [[escape_latex(_name(row, table, "{}")), *_cells(row, table, r"\textbf{{{}}}")] for row in table.rows]
    head, *body = (rf"{' & '.join(line)} \\" for line in (["", *spans], ["change", *names], *rows))
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escape_latex(' '.join(table.caption))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
        *(r"\toprule", head, body[0], r"\midrule", *body[1:], r"\bottomrule"),
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([*lines, ""]).translate(SIGNS)


def _change(fields: FieldValues, base: FieldValues) -> str:
    """Formats the fields that differ from the base."""
    pairs = {name: (fields.get(name, UNSET), base.get(name, UNSET)) for name in {**base, **fields}}
    return fields_text(
        {name: value for name, (value, other) in pairs.items() if value_text(value) != value_text(other)}
    )


def _gain(combination: Ranked, base: Ranked, subset: str, task: Task) -> dict[str, float] | None:
    if not (combination.complete and base.complete):
        return None
    means, base_means = (getattr(ranked, subset).mean for ranked in (combination, base))
    known = [score for score in task.scores if score.name in means and score.name in base_means]
    return {score.name: score.unit * (means[score.name] - base_means[score.name]) for score in known}


def _name(row: AblationRow, table: Ablation, markup: str) -> str:
    """Formats the name of a row; `markup` is the format of its fields."""
    name = markup.format(row.change) if row.change else table.base
    return f"{name} ({row.lack})" if row.lack else name


def _cells(row: AblationRow, table: Ablation, bold: str) -> list[str]:
    """Formats the cells of a row after its name; `bold` is the format of the best mean of a column."""
    cells = []
    for subset in table.shown:
        scores: Spread | None = getattr(row, subset)
        for score in table.task.scores:
            mean, sign, deviation = spread_text(scores, score).partition(PLUS_MINUS)
            best = not row.lack and mean == _best(table, subset, score)
            cells.append(f"{bold.format(mean) if best else mean}{sign}{deviation}" if scores else MISSING)
    gain = row.gain or {}
    return [*cells, *(_signed(gain[name]) if name in gain else MISSING for name in table.task.names)]


def _best(table: Ablation, subset: str, score: Score) -> str:
    """Returns the best mean of a column as text; rows with missing models do not count."""
    spreads: list[Spread | None] = [getattr(row, subset) for row in table.rows if not row.lack]
    means = [spread.mean[score.name] for spread in spreads if spread and score.name in spread.mean]
    best = max if score.higher_is_better else min
    return score.text(best(means, default=0.0))


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"  # adding 0 removes the sign of -0
