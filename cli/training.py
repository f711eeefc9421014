"""What ``mmer-train`` does: reads what was asked for, trains, prints the scores and what they are."""

import os
import shutil
from pathlib import Path
from typing import Any

import click

from cli.options import print_json, print_table, size_text

FLAGS = ("modalities", "modality_dropout", "epochs", "batch_size", "lr", "data_seed")  # fields with a flag of their own


def train_and_report(*, as_json: bool, latex: bool, replace: bool, runs: tuple[Path, ...], **asked: Any) -> None:
    """Trains what is asked for, or adds two finished runs up, and prints the results."""
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as in cli/extract.py
    results, notes = _added(runs, asked) if runs else _trained(asked, replace)
    if as_json:
        print_json(results)
        return
    _print_results(results, notes)
    if latex:
        from fusion.results import latex_row

        click.echo(latex_row(results))


def _trained(asked: dict[str, Any], replace: bool) -> tuple[dict[str, Any], list[str]]:
    from cache.joined import open_cache
    from cli.progress import TrainingBar
    from featurize.device import choose_device
    from fusion.crossval import cross_validate, plan_run
    from fusion.plots import plot_confusion
    from fusion.results import collect, counts_of
    from fusion.run import RunFolder

    experiment = _experiment(asked)
    cache = open_cache(asked["cache"])
    plan = plan_run(experiment, cache)
    folder = RunFolder(asked["out"] or _default_folder(asked["cache"], plan))
    if replace and folder.path.exists():
        shutil.rmtree(folder.path)
    with folder.locked(), TrainingBar() as watcher:
        cross_validate(plan, folder, device=choose_device(asked["device"]), watcher=watcher)
        results = collect(folder, cache, plan.described)
    names = list(plan.inputs.classes)
    plot_confusion(folder, counts_of(folder, names), names, f"{experiment.fusion}, {plan.split.protocol}")
    return results, [*plan.notes, *_beside(experiment, results)]


def _experiment(asked: dict[str, Any]) -> Any:
    from cache.errors import MmerError
    from fusion.configure import configure, parse_fields
    from fusion.experiment import Experiment

    recipe = _recipe(asked["recipe"])
    fusion = asked["fusion"] or (recipe.fusion if recipe else None)
    if fusion is None:
        raise MmerError("name a head by --fusion, see --list-heads, or a --recipe")
    if recipe and recipe.fusion != fusion:
        raise MmerError(f"recipe {recipe.name} is for head {recipe.fusion}, not for {fusion}; leave --fusion out")
    values: dict[str, object] = dict(recipe.fields) if recipe else {}
    values |= {name: asked[name] for name in FLAGS if asked[name] is not None}
    head, training = configure(fusion, values | parse_fields(asked["fields"]))
    streams = {role: asked[role] for role in ("audio", "text") if asked[role]} | parse_fields(asked["streams"])
    return Experiment(
        fusion=fusion,
        head=head,
        training=training,
        seeds=asked["seeds"] or (0,),
        streams=streams,
        labels=asked["labels"] or (recipe.labels if recipe else None),
        protocol=asked["protocol"] or (recipe.protocol if recipe else None),
        allow_missing=asked["allow_missing"],
        allow_leak=asked["allow_leak"],
        recipe=asked["recipe"] or "",
    )


def _recipe(name: str | None) -> Any:
    if name is None:
        return None
    from fusion.recipes import recipe

    return recipe(name)


def _beside(experiment: Any, results: dict[str, Any]) -> list[str]:
    """Puts what a recipe's paper published beside what was obtained."""
    if not experiment.recipe:
        return []
    from fusion.recipes import beside, recipe

    labels = experiment.labels or ", ".join(results["labels"])
    return list(beside(recipe(experiment.recipe), results["mean"], results["protocol"], labels, frozen=True))


def _default_folder(cache: Path, plan: Any) -> Path:
    from fusion.experiment import digest_of

    stem = "".join(sign for sign in cache.stem if sign not in "*?[]").rstrip("-_.")
    return Path("runs") / f"{stem}-{plan.experiment.fusion}-{digest_of(plan.described)[:8]}"


def _added(runs: tuple[Path, ...], asked: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    from cache.errors import MmerError
    from cache.joined import open_cache
    from fusion.adding import add_runs
    from fusion.run import RunFolder

    if len(runs) != 2 or asked["fusion"] != "score":
        raise MmerError("--run takes two finished runs, and goes with --fusion score")
    out = asked["out"] or Path("runs") / f"score-{runs[0].name}-{runs[1].name}"
    results = add_runs([RunFolder(run) for run in runs], open_cache(asked["cache"]), RunFolder(out))
    return results, [f"the sum of the logits of {runs[0]} and {runs[1]}"]


def _print_results(results: dict[str, Any], notes: list[str]) -> None:
    from fusion.results import score_table

    print_table(("fold", "seed", "epoch", "train", "dev", "test", "WA", "UA", "W-F1"), score_table(results))
    for note in notes:
        click.echo(note)
    first = results["folds"][0]
    seconds = sum(one["seconds"] for one in results["folds"])
    over = sum(len(one["over_limits"]) for one in results["folds"])
    if over:
        click.echo(
            f"{over} test utterances are longer than the head takes in full; scores.json of each fold lists them"
        )
    peak = max(one["peak_bytes"] for one in results["folds"])
    click.echo(
        f"{results['run']}: {first['parameters']:,} parameters, {seconds:.1f} s of training, peak {size_text(peak)}"
    )
