"""Kills runs at random moments, creation included, and checks that nothing committed is lost.

    python -m benchmarks.kill_runs --kills 50

A run over a part of the demo corpus is started again and again and killed by SIGKILL after a random time; where there
is no file yet, every third kill waits for its creation. After every kill the file, if there is one, must open, must be
sound, and must still hold every row that was committed before, to the bit. Whenever a run gets through, its values must
equal those of an undisturbed run; then the next begins from nothing.
"""

import multiprocessing
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
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


@click.command()
@click.option("--kills", default=50, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(kills: int, seed: int) -> None:
    """Kills runs and prints what was at stake."""
    with TemporaryDirectory() as folder:
        tally = survive(Path(folder), kills=kills, seed=seed)
    moments = ", ".join(f"{count} {moment}" for moment, count in tally.kills.items())
    print(f"{tally.total} kills ({moments}), {tally.finished} runs got through between them")
    print(f"nothing committed was lost ({tally.rows_at_stake} committed rows looked at after the kills)")


if __name__ == "__main__":
    main()
