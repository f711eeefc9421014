"""The ablation table of a grid, in Markdown and LaTeX: what each combination changes, and what that costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fusion.evaluation.task import CLASSIFICATION, Score, Task
from fusion.grid.combinations import FieldValues, fields_text, value_text
from fusion.grid.report.tables import ALL_TESTS, NOTHING, failure_text, spread_text
from fusion.grid.selection import UNSET, Ranked, Spread
from fusion.run.folder import Folder
from fusion.run.results import SIGNS, escaped

ABLATION_MD, ABLATION_TEX = "ablation.md", "ablation.tex"
BASE = "base"
PLUS_MINUS = " ± "
CLOSED = "The tests of combinations that were not chosen are closed."


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """One row: a combination as it differs from the base.

    Attributes:
        change: what it sets otherwise than the base, as on the command line; empty for the base.
        lack: what it lacks, empty where all its models are trained.
        dev: its scores, None where there are none.
        test: None while it is not open to all its models.
        gain: its mean minus that of the base by metric, in points; None for the base, and if one of them lacks models.
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
        base: what the first row is called.
        fields: of the base.
        rows: in the order of the grid, the base first.
        shown: the parts with columns of their own.
        compared: the part that differences are taken on.
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
        """What is to be known of the table, a sentence each."""
        measured = f"Mean ± standard deviation over folds, on {' and '.join(self.shown)}."
        compared = f"Δ: difference to the first row ({fields_text(self.fields)}) on {self.compared}, in points."
        return tuple(one for one in (f"{self.title}.", measured, compared, self._tests) if one)

    @property
    def _tests(self) -> str:
        """Says whose tests are shown."""
        if self.compared != "test":
            return CLOSED
        alone = sum(not row.lack for row in self.rows) < 2
        return "" if alone else f"{ALL_TESTS[0].upper()}{ALL_TESTS[1:]}."


def ablation(ranked: Sequence[Ranked], title: str, *, base: str = BASE, task: Task = CLASSIFICATION) -> Ablation:
    """Compares all combinations with the first of the grid.

    Differences are taken on test if the tests of all combinations that are complete are open, else on dev.

    Args:
        ranked: the combinations, at least one.
        title: of the table.
        base: what the first combination is, such as ``as published``.
        task: task of the grid.
    """
    in_order = sorted(ranked, key=lambda one: one.combination)
    complete = [one for one in in_order if one.complete]
    compared = "test" if complete and all(one.test for one in complete) else "dev"
    first = in_order[0]
    rows = tuple(
        AblationRow(
            change=_change(one.fields, first.fields) if one is not first else "",
            lack=failure_text(one),
            dev=one.dev,
            test=one.test,
            gain=_gain(one, first, compared, task) if one is not first else None,
        )
        for one in in_order
    )
    shown = ("dev", "test") if any(one.test for one in in_order) else ("dev",)
    return Ablation(title=title, base=base, fields=first.fields, rows=rows, shown=shown, compared=compared, task=task)


def write_ablation(folder: Folder, table: Ablation) -> None:
    """Writes an ablation table as `ABLATION_MD` and `ABLATION_TEX`.

    Raises:
        MmerError: if they cannot be written.
    """
    for name, text in {ABLATION_MD: as_markdown(table), ABLATION_TEX: as_latex(table)}.items():
        with folder.replacing(name) as path:
            path.write_text(text, encoding="utf-8")


def as_markdown(table: Ablation) -> str:
    """Writes an ablation table in Markdown; the best of each column is bold."""
    header = ["change", *(f"{part} {score.title}" for part in (*table.shown, "Δ") for score in table.task.scores)]
    rows = [[_name(row, table, "`{}`"), *_cells(row, table, "**{}**")] for row in table.rows]
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    title, *others = table.caption
    table_lines = [" | ".join(cell.replace("|", r"\|") for cell in line) for line in lines]
    return "\n".join([f"**{title}** {' '.join(others)}", "", *(f"| {line} |" for line in table_lines), ""])


def as_latex(table: Ablation) -> str:
    """Writes an ablation table in LaTeX, for the package booktabs; the best of each column is bold."""
    parts = [*table.shown, f"Δ {table.compared}"]
    names = [score.title for _ in parts for score in table.task.scores]
    spans = [rf"\multicolumn{{{len(table.task.scores)}}}{{c}}{{{part}}}" for part in parts]
    rows = [[escaped(_name(row, table, "{}")), *_cells(row, table, r"\textbf{{{}}}")] for row in table.rows]
    head, *body = (rf"{' & '.join(line)} \\" for line in (["", *spans], ["change", *names], *rows))
    lines = [
        r"\begin{table}",
        r"\centering\small",
        rf"\caption{{{escaped(' '.join(table.caption))}}}",
        rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
        *(r"\toprule", head, body[0], r"\midrule", *body[1:], r"\bottomrule"),
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join([*lines, ""]).translate(SIGNS)


def _change(fields: FieldValues, base: FieldValues) -> str:
    """Tells what is set otherwise than in the base."""
    pairs = {name: (fields.get(name, UNSET), base.get(name, UNSET)) for name in {**base, **fields}}
    return fields_text({name: own for name, (own, other) in pairs.items() if value_text(own) != value_text(other)})


def _gain(one: Ranked, base: Ranked, part: str, task: Task) -> dict[str, float] | None:
    if not (one.complete and base.complete):
        return None
    own, other = (getattr(each, part).mean for each in (one, base))
    known = [score for score in task.scores if score.name in own and score.name in other]
    return {score.name: score.unit * (own[score.name] - other[score.name]) for score in known}


def _name(row: AblationRow, table: Ablation, fields: str) -> str:
    """Names a row; `fields` is how fields are set apart."""
    name = fields.format(row.change) if row.change else table.base
    return f"{name} ({row.lack})" if row.lack else name


def _cells(row: AblationRow, table: Ablation, strong: str) -> list[str]:
    """Gives the cells of a row after its name; `strong` is how the best of a column is set apart."""
    cells = []
    for part in table.shown:
        scores: Spread | None = getattr(row, part)
        for score in table.task.scores:
            mean, sign, deviation = spread_text(scores, score).partition(PLUS_MINUS)
            best = not row.lack and mean == _best(table, part, score)
            cells.append(f"{strong.format(mean) if best else mean}{sign}{deviation}" if scores else NOTHING)
    gain = row.gain or {}
    return [*cells, *(_signed(gain[name]) if name in gain else NOTHING for name in table.task.names)]


def _best(table: Ablation, part: str, score: Score) -> str:
    """Gives the best mean of a column as written; rows that lack models do not count."""
    scores = [getattr(row, part) for row in table.rows if not row.lack]
    means = [one.mean[score.name] for one in scores if one and score.name in one.mean]
    best = max if score.higher_is_better else min
    return score.text(best(means, default=0.0))


def _signed(points: float) -> str:
    return f"{round(points, 2) + 0.0:+.2f}"  # adding 0 takes the sign from -0
