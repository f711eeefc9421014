"""``mmer-train``: a fusion head, trained and scored on every fold of a protocol.

Prints the results of a run: the table of folds, what they mean, and what they took.

What ``mmer-train`` does: reads what was asked for, trains or adds up, prints.
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cli.listing import listing_options
from cli.options import clean_errors, experiment_options, json_option, print_json, print_table, size_text

SHOWN = 5  # utterances over a head's limits that are named; scores.json of each fold lists all
PATTERN = re.compile(r"[-_.]*[*?\[\]]+[-_.]*")  # what names several cache files, with the signs around it
OF_SUMS = frozenset(
    {"fusion", "cache", "out", "device", "tensorboard", "resident_share"}
)  # what --run may stand beside


def print_results(results: Mapping[str, Any], notes: Sequence[str], *, latex: bool = False) -> None:
    """Prints a finished run.

    Args:
        results: as `fusion.run.results.collect` gives them.
        notes: to print below those that are part of the results.
        latex: print a row of a LaTeX table too.
    """
    from fusion.run.results import HEADER, latex_row, recall_line, score_table

    print_table(HEADER, score_table(results))
    for line in [recall_line(results), *results["notes"], *notes, *_noted(results["folds"])]:
        click.echo(line)
    click.echo(_cost(results))
    if latex:
        click.echo(latex_row(results))


def train_and_report(*, as_json: bool, latex: bool, replace: bool, runs: tuple[Path, ...], **asked: Any) -> None:
    """Trains what is asked for, or adds finished runs up, and prints the results."""

    check_one_form(as_json=as_json, latex=latex)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in cli/extract.py
    from featurize.runtime.memory import keep_freed_memory

    keep_freed_memory()
    results, notes = _added(runs, asked, replace) if runs else _trained(asked, replace)
    if as_json:
        print_json(results)
    else:
        print_results(results, notes, latex=latex)


def check_one_form(*, as_json: bool, latex: bool) -> None:
    """Refuses a row of LaTeX inside an object for machines."""
    from cache.errors import MmerError

    if as_json and latex:
        raise MmerError("--latex prints below the table, and --json prints one object alone; leave one of them out")


def default_name(cache: Path, ending: str) -> Path:
    """Gives the folder below runs/ that a cache's results go to."""
    stem = "-".join(part for part in PATTERN.split(cache.stem) if part)
    return Path("runs") / f"{stem}-{ending}"


@click.command()
@experiment_options
@click.option("--seed", "seeds", type=int, multiple=True, help="Of the models; repeatable.  [default: 0]")
@click.option("--out", type=click.Path(path_type=Path), help="Run folder.  [default: below runs/, named after the run]")
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="Finished run whose logits are added up; two or more, with --fusion score.",
)
@click.option("--replace", is_flag=True, help="Train anew what the run folder holds.")
@click.option("--latex", is_flag=True, help="Print a row of a LaTeX table too.")
@click.option("--tensorboard", is_flag=True, help="Write the curves for TensorBoard too, into the run folder.")
@listing_options
@json_option
def train(**asked: Any) -> None:
    """Trains a fusion head on cached features and scores it on every fold.

    Epochs are chosen on dev; each test part is opened once, for the epoch that dev chose. A run that was killed goes on
    where it was; a finished one is printed again.

    \b
    Example:
        mmer-train --fusion rescmfa --cache cache/demo.h5
        mmer-train --recipe gcf2net-iemocap --cache cache/iemocap.h5 --seed 1 --seed 2 --seed 3
    """
    with clean_errors():
        train_and_report(**asked)


def _noted(folds: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Gives what the head noted of every fold, and the utterances it cannot take in full."""
    from fusion.run.artifacts import OVER_LIMITS

    yield from (note for note in folds[0]["notes"] if all(note in one["notes"] for one in folds))
    over = {part: _over_limits(folds, key) for part, key in OVER_LIMITS.items()}
    names = list(dict.fromkeys(name for part in over.values() for name in part))
    if names:
        counts = ", ".join(f"{len(own)} {part}" for part, own in over.items() if own)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        told = "utterances are longer than the head takes in full"
        yield f"{counts} {told}: {', '.join(names[:SHOWN])}{more}"


def _over_limits(folds: Sequence[Mapping[str, Any]], key: str) -> list[str]:
    """Gathers what a part lists over all folds; a sum of runs lists that of test alone."""
    return list(dict.fromkeys(name for one in folds for name in one.get(key, ())))


def _cost(results: Mapping[str, Any]) -> str:
    from fusion.run.folder import RunFolder
    from fusion.run.results import cost_of

    folder = RunFolder(Path(results["run"]))
    seconds, peak_bytes = cost_of(folder, folder.described)
    took = f", {seconds:.1f} s of training, peak {size_text(peak_bytes)}" if seconds else ""
    return f"{results['run']}: {results['folds'][0]['parameters']:,} parameters{took}"


def _trained(asked: dict[str, Any], replace: bool) -> tuple[dict[str, Any], list[str]]:
    from cache.joined import open_cache

    cache = open_cache(asked["cache"])  # before torch is imported: a wrong path is answered at once
    from cli.progress import TrainingBar
    from featurize.runtime.device import choose_device
    from fusion.experiment.experiment import experiment_of
    from fusion.experiment.plan import plan_run
    from fusion.run.cross_validation import cross_validate
    from fusion.run.folder import RunFolder
    from fusion.run.results import collect
    from fusion.run.tensorboard import Board
    from fusion.training.interrupt import interrupts_put_off

    device = choose_device(asked["device"])
    plan = plan_run(experiment_of(asked, cache), cache)
    folder = RunFolder(asked["out"] or _default_folder(asked["cache"], plan))
    with TrainingBar() as bar, interrupts_put_off() as stopping:
        watcher = Board(bar, folder) if asked["tensorboard"] else bar
        with folder.locked():
            if replace:
                folder.clear()
            share = asked["resident_share"]
            cross_validate(plan, folder, device=device, watcher=watcher, resident_share=share, stopping=stopping)
            notes = [*plan.notes, plan.opening]
            results = collect(folder, cache, plan.described, notes=notes, published=_published(plan))
    return results, _beside(plan, results)


def _published(plan: Any) -> list[dict[str, Any]]:
    """Gives the figures of a recipe's paper, for machines."""
    from fusion.recipes.catalog import recipe

    figures = recipe(plan.experiment.recipe).published.figures if plan.experiment.recipe else ()
    return [{"what": one.what, "status": one.status, **one.scores} for one in figures]


def _beside(plan: Any, results: dict[str, Any]) -> list[str]:
    """Puts what a recipe's paper published beside what was obtained."""
    from fusion.experiment.experiment import changed_fields
    from fusion.experiment.streams import corpus_of
    from fusion.recipes.catalog import recipe
    from fusion.recipes.comparison import beside

    if not plan.experiment.recipe:
        return []
    chosen, labels = recipe(plan.experiment.recipe), plan.split.labels.name
    return beside(
        chosen,
        results["mean"],
        results["protocol"],
        labels,
        frozen=plan.frozen,
        corpus=corpus_of(plan.cache),
        changed=changed_fields(plan.experiment, chosen.fields),
        streams=plan.chosen.streams,
        only=plan.narrowing,
    )


def _default_folder(cache: Path, plan: Any) -> Path:
    from fusion.fingerprint import digest_of

    return default_name(cache, f"{plan.experiment.fusion}-{digest_of(plan.decides)[:8]}")


def _added(runs: tuple[Path, ...], asked: dict[str, Any], replace: bool) -> tuple[dict[str, Any], list[str]]:
    from cache.errors import MmerError
    from cache.joined import open_cache
    from fusion.run.folder import RunFolder
    from fusion.run.score_fusion import FUSION, add_runs

    beside = [name for name, value in asked.items() if name not in OF_SUMS and value not in {None, (), False}]
    if len(runs) < 2 or asked["fusion"] != FUSION:
        raise MmerError("--run takes finished runs, two or more, and goes with --fusion score")
    if beside:
        raise MmerError(f"finished runs are added up as they are; leave {', '.join(beside)} out")
    out = RunFolder(asked["out"] or Path("runs") / f"score-{'-'.join(run.name for run in runs)}")
    return add_runs([RunFolder(run) for run in runs], open_cache(asked["cache"]), out, replace=replace), []


if __name__ == "__main__":
    sys.exit(train())
