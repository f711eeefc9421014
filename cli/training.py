"""What ``mmer-train`` does: reads what was asked for, trains or adds up, prints."""

import os
import re
from pathlib import Path
from typing import Any

from cli.experiment import experiment_of
from cli.options import print_json

PATTERN = re.compile(r"[-_.]*[*?\[\]]+[-_.]*")  # what names several cache files, with the signs around it
OF_SUMS = frozenset(
    {"fusion", "cache", "out", "device", "tensorboard", "resident_share"}
)  # what --run may stand beside


def train_and_report(*, as_json: bool, latex: bool, replace: bool, runs: tuple[Path, ...], **asked: Any) -> None:
    """Trains what is asked for, or adds finished runs up, and prints the results."""
    from cli.scores import print_results

    check_one_form(as_json=as_json, latex=latex)
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in cli/extract.py
    from featurize.memory import keep_freed_memory

    keep_freed_memory()
    results, notes = _added(runs, asked, replace) if runs else _trained(asked, replace)
    if as_json:
        print_json(results)
    else:
        print_results(results, notes, latex=latex)


def _trained(asked: dict[str, Any], replace: bool) -> tuple[dict[str, Any], list[str]]:
    from cache.joined import open_cache
    from cli.progress import TrainingBar
    from featurize.device import choose_device
    from fusion.board import Board
    from fusion.crossval import cross_validate
    from fusion.interrupt import interrupts_put_off
    from fusion.plan import plan_run
    from fusion.results import collect
    from fusion.run import RunFolder

    device = choose_device(asked["device"])
    cache = open_cache(asked["cache"])
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
    from fusion.recipes import recipe

    figures = recipe(plan.experiment.recipe).published.figures if plan.experiment.recipe else ()
    return [{"what": one.what, "status": one.status, **one.scores} for one in figures]


def _beside(plan: Any, results: dict[str, Any]) -> list[str]:
    """Puts what a recipe's paper published beside what was obtained."""
    from fusion.comparison import beside
    from fusion.configure import changed_fields
    from fusion.recipes import recipe
    from fusion.remedy import corpus_of

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


def check_one_form(*, as_json: bool, latex: bool) -> None:
    """Refuses a row of LaTeX inside an object for machines."""
    from cache.errors import MmerError

    if as_json and latex:
        raise MmerError("--latex prints below the table, and --json prints one object alone; leave one of them out")


def default_name(cache: Path, ending: str) -> Path:
    """Gives the folder below runs/ that a cache's results go to."""
    stem = "-".join(part for part in PATTERN.split(cache.stem) if part)
    return Path("runs") / f"{stem}-{ending}"


def _default_folder(cache: Path, plan: Any) -> Path:
    from fusion.experiment import digest_of

    return default_name(cache, f"{plan.experiment.fusion}-{digest_of(plan.decides)[:8]}")


def _added(runs: tuple[Path, ...], asked: dict[str, Any], replace: bool) -> tuple[dict[str, Any], list[str]]:
    from cache.errors import MmerError
    from cache.joined import open_cache
    from fusion.adding import FUSION, add_runs
    from fusion.run import RunFolder

    beside = [name for name, value in asked.items() if name not in OF_SUMS and value not in {None, (), False}]
    if len(runs) < 2 or asked["fusion"] != FUSION:
        raise MmerError("--run takes finished runs, two or more, and goes with --fusion score")
    if beside:
        raise MmerError(f"finished runs are added up as they are; leave {', '.join(beside)} out")
    out = RunFolder(asked["out"] or Path("runs") / f"score-{'-'.join(run.name for run in runs)}")
    return add_runs([RunFolder(run) for run in runs], open_cache(asked["cache"]), out, replace=replace), []
