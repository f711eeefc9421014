"""Kills commands at random moments, creation included, and checks that nothing committed is lost.

    python -m benchmarks.kill_runs --kills 50
    python -m benchmarks.kill_runs --kills 20 --command train --command grid --command merge --command import

A run over a part of the demo corpus is started again and again and killed by SIGKILL after a random time; where there
is no file yet, every third kill waits for its creation. After every kill the file, if there is one, must open, must be
sound, and must still hold every row that was committed before, to the bit. Whenever a run gets through, its values must
equal those of an undisturbed run; then the next begins from nothing.

The other commands work on that cache. After every kill the cache that they write must be absent or sound; when the same
command gets through at last, its files must equal those of an undisturbed run, and no temporary file may be left.
"""

import multiprocessing
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from benchmarks.support.measure import Silent
from cache.audit import verify
from cache.layout import COMMITTED
from cache.store import FeatureCache

CREATION_S = 0.02  # about as long as the file exists under its temporary name
ENCODERS = ("wav2vec2-tiny", "roberta-tiny")

Committed = Mapping[tuple[str, str], tuple[int, bytes, str]]


@dataclass
class Tally:
    """What happened: kills by what was there at that moment, and runs that got through."""

    kills: dict[str, int] = field(default_factory=lambda: {"before the file": 0, "creating": 0, "writing": 0})
    finished: int = 0
    rows_at_stake: int = 0

    @property
    def total(self) -> int:
        """All kills."""
        return sum(self.kills.values())


def survive(folder: Path, *, kills: int, seed: int, utterances: int = 60) -> Tally:
    """Runs and kills until that many kills have happened.

    Args:
        folder: an empty folder to work in.
        kills: how many.
        seed: of the random moments.
        utterances: of the demo corpus.

    Raises:
        AssertionError: if a kill lost something.
    """
    moments, tally = random.Random(seed), Tally()
    _finish(folder / "reference.h5", folder, utterances)  # writes the demo corpus
    started = time.monotonic()
    _finish(folder / "undisturbed.h5", folder, utterances)
    longest_s = time.monotonic() - started
    reference = _committed(folder / "reference.h5")
    path = folder / "killed.h5"
    before: dict[tuple[str, str], tuple[int, bytes, str]] = {}
    while tally.total < kills:
        process = _start(path, folder, utterances)
        if not path.exists() and moments.random() < 1 / 3:
            _await_creation(path, process, moments.uniform(0, CREATION_S))
        else:
            process.join(moments.uniform(0, longest_s))
        if process.exitcode is None:
            process.kill()
            process.join()
            tally.kills[_moment(path)] += 1
        after = _committed(path) if path.exists() else {}
        assert before.items() <= after.items(), "committed rows were lost"
        assert after.items() <= reference.items(), "rows differ from those of an undisturbed run"
        tally.rows_at_stake += len(after)
        before = dict(after)
        if len(after) == len(reference):
            tally.finished += 1
            path.unlink()
            before = {}
    _finish(path, folder, utterances)
    assert _committed(path) == reference, "the finished file is not the undisturbed one"
    return tally


def _finish(path: Path, folder: Path, utterances: int) -> None:
    process = _start(path, folder, utterances)
    process.join()
    assert process.exitcode == 0, "an undisturbed run failed"


def _await_creation(path: Path, process: multiprocessing.process.BaseProcess, delay_s: float) -> None:
    """Waits until the file is being created under its temporary name, and a moment longer."""
    while process.is_alive() and not path.exists() and not _part(path):
        time.sleep(0.0002)
    time.sleep(delay_s)


def _start(path: Path, folder: Path, utterances: int) -> multiprocessing.process.BaseProcess:
    # A server that has torch imported forks the runs, so that kills hit the run and not its imports.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["featurize.extraction.run"])
    process = context.Process(target=_run, args=(path, folder / "demo", utterances))
    process.start()
    return process


def _run(path: Path, root: Path, utterances: int) -> None:
    import torch

    from featurize.encoders.options import EncodingOptions
    from featurize.extraction.job import ExtractionJob
    from featurize.extraction.run import run_job

    torch.set_num_threads(1)
    options = EncodingOptions(device=torch.device("cpu"))
    job = ExtractionJob(
        corpus="demo", root=root, cache=path, encoders=ENCODERS, options=options, mel=False, limit=utterances
    )
    run_job(job, Silent())


def _committed(path: Path) -> Committed:
    """Opens a file, checks it, and gives checksum, digest and note of every committed row; `verify` holds the bytes."""
    cache = FeatureCache(path)
    assert verify(cache) == [], "the file is not sound"
    return {
        (name, cache.ids[index]): (int(stream.checksum[index]), bytes(stream.input_digest[index]), stream.reason(index))
        for name, stream in cache.streams.items()
        for index in range(len(cache))
        if stream.state[index] == COMMITTED
    }


def _moment(path: Path) -> str:
    if path.exists():
        return "writing"
    return "creating" if _part(path) else "before the file"


def _part(path: Path) -> list[Path]:
    return list(path.parent.glob(f".{path.name}.*.part"))


def survive_command(name: str, folder: Path, *, kills: int, seed: int) -> Tally:
    """Starts and kills a command until that many kills have happened, and checks what each of its runs leaves.

    Args:
        name: train, grid, merge or import.
        folder: folder with ``reference.h5``, in which a folder of the command is made.
        kills: number of kills.
        seed: seed of the random moments.

    Raises:
        AssertionError: if a kill lost something.
    """
    moments, tally, home = random.Random(seed), Tally(), folder / name
    home.mkdir()
    started = time.monotonic()
    expected = _outcome(name, folder, home / "undisturbed")
    longest_s = time.monotonic() - started
    while tally.total < kills:
        out = home / f"killed{tally.finished}"
        process = _command_process(name, folder, out)
        process.join(moments.uniform(0, longest_s))
        if process.exitcode is None:
            process.kill()
            process.join()
            tally.kills["writing" if out.exists() else "before the file"] += 1
            if out.is_file():
                _committed(out)
            continue
        assert process.exitcode == 0, "a repeated command failed"
        tally.finished += 1
    out = home / f"killed{tally.finished}"
    assert _outcome(name, folder, out) == expected, "the outcome is not the undisturbed one"
    tally.rows_at_stake += len(expected)
    assert not _temporary(home), f"left: {_temporary(home)}"
    return tally


def _outcome(name: str, folder: Path, out: Path) -> Mapping[object, object]:
    """Runs a command to its end; returns what must not depend on kills."""
    process = _command_process(name, folder, out)
    process.join()
    assert process.exitcode == 0, "an undisturbed command failed"
    if out.is_file():
        return dict[object, object](_committed(out))
    compared = ("weights.safetensors", "predictions.csv", "curves.csv", "scores.json")
    found = [path for path in sorted(out.rglob("*")) if path.name in compared]
    return {str(path.relative_to(out)): sha256(path.read_bytes()).hexdigest() for path in found}


def _temporary(folder: Path) -> list[Path]:
    return [path for path in folder.rglob(".*") if path.name != ".lock"]


def _command_process(name: str, folder: Path, out: Path) -> multiprocessing.process.BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["featurize.extraction.run", "fusion.grid.run"])
    process = context.Process(target=COMMANDS[name], args=(folder / "reference.h5", out))
    process.start()
    return process


def _quiet(command: click.Command, *arguments: object) -> None:
    import torch

    torch.set_num_threads(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    command([str(argument) for argument in arguments])


TRAINING = ("--fusion", "audio", "--protocol", "random5", "--epochs", 3, "--batch-size", 16, "--device", "cpu")


def _train(cache: Path, out: Path) -> None:
    from cli.train import train

    _quiet(train, "--cache", cache, "--out", out, *TRAINING)


def _grid(cache: Path, out: Path) -> None:
    from cli.grid import grid

    _quiet(grid, "--cache", cache, "--out", out, "--grid", "lr=0.01,0.001", "--engine", "shared", *TRAINING)


def _merge(cache: Path, out: Path) -> None:
    from cli.maintain import cache as maintain

    _quiet(maintain, "merge", out, cache, "--replace")


def _import(cache: Path, out: Path) -> None:
    from cli.maintain import cache as maintain

    pack = cache.parent / "pack"
    if not pack.exists():
        from cache.joined import open_cache
        from cache.packs.export import export_pack

        export_pack(open_cache(cache), pack)
    _quiet(maintain, "import", pack, out)


COMMANDS: Mapping[str, Callable[[Path, Path], None]] = {
    "train": _train,
    "grid": _grid,
    "merge": _merge,
    "import": _import,
}


@click.command()
@click.option("--kills", default=50, show_default=True, help="Number of kills of each command.")
@click.option("--seed", default=0, show_default=True, help="Seed of the random moments.")
@click.option(
    "--command",
    "commands",
    multiple=True,
    type=click.Choice(["featurize", *COMMANDS]),
    help="Command to kill; repeatable.  [default: all]",
)
def main(kills: int, seed: int, commands: tuple[str, ...]) -> None:
    """Kills commands and prints what was at stake."""
    chosen = commands or ("featurize", *COMMANDS)
    with TemporaryDirectory() as name:
        folder = Path(name)
        if "featurize" in chosen:
            _print(survive(folder, kills=kills, seed=seed), "featurize")
        else:
            _finish(folder / "reference.h5", folder, 60)
        for command in chosen:
            if command in COMMANDS:
                _print(survive_command(command, folder, kills=kills, seed=seed), command)


def _print(tally: Tally, command: str) -> None:
    moments = ", ".join(f"{count} {moment}" for moment, count in tally.kills.items() if count)
    print(f"{command}: {tally.total} kills ({moments}), {tally.finished} runs got through between them")
    print(f"nothing committed was lost ({tally.rows_at_stake} rows or files compared)", flush=True)


if __name__ == "__main__":
    main()
