"""What ``mmer-featurize`` sets for its process on a CPU: kept memory, OpenMP threads that sleep early, one for numpy.

Claim: kept memory makes a base-size wav2vec 2.0 faster; threads that stop spinning early cost little on an idle machine
and save much on one where another process keeps a core busy. A second thread of numpy's products gains nothing for
log-mel and costs much on such a machine. Every measurement is a process of its own, since the settings are those of a
process; the arms take turns. Run it by ``python -m benchmarks.bench_process``.
"""

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks.support.measure import Spread, machine_line
from cli.output import print_table

ARMS = {"as torch starts": (False, {}), "memory kept": (True, {}), "early sleep": (False, {"GOMP_SPINCOUNT": "1000"})}
ARMS["both, as the command"] = (True, {"GOMP_SPINCOUNT": "1000"})
LOGMEL_ARMS = {"as numpy starts": (False, {}), "one thread, as the command": (False, {"OPENBLAS_NUM_THREADS": "1"})}
BUSY = "while True: pass"

Settings = tuple[bool, dict[str, str]]


def encode_seconds(calls: int) -> float:
    """Gives the median seconds that a random base-size model takes for 4.5 s of noise in this process."""
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    model = Wav2Vec2Model(Wav2Vec2Config())
    model.train(False)
    noise, seconds = torch.randn(1, 72_000), []
    with torch.inference_mode():
        model(noise)
        for _ in range(calls):
            started = time.perf_counter()
            model(noise)
            seconds.append(time.perf_counter() - started)
    return Spread.of(seconds).median


def logmel_seconds(calls: int) -> float:
    """Gives the median seconds that the log-mel of 4.5 s of noise takes in this process, by a hundred of them."""
    import numpy as np

    from featurize.encoders.acoustic import logmel80

    noise, seconds = np.random.default_rng(0).standard_normal(72_000).astype(np.float32), []
    logmel80(noise)
    for _ in range(calls):
        started = time.perf_counter()
        for _ in range(100):
            logmel80(noise)
        seconds.append((time.perf_counter() - started) / 100)
    return Spread.of(seconds).median


HERE = {"wav2vec2": encode_seconds, "logmel": logmel_seconds}


def measured(what: str, arm: Settings, calls: int, *, busy: bool) -> float:
    """Runs one arm in a process of its own, beside a busy one or not."""
    kept, settings = arm
    command = [sys.executable, "-m", "benchmarks.bench_process", "--calls", str(calls), "--here", what]
    unset = ("GOMP_SPINCOUNT", "OPENBLAS_NUM_THREADS")
    environment = {name: value for name, value in os.environ.items() if name not in unset} | settings
    with ExitStack() as stack:
        if busy:
            other = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(other.kill)
        told = subprocess.run(
            [*command, *(["--keep"] if kept else [])], env=environment, capture_output=True, text=True, check=True
        )
    return float(told.stdout)


def compare(what: str, arms: dict[str, Settings], asked: argparse.Namespace) -> None:
    """Measures the arms in turn and prints how many times faster than the first each is."""
    plain, rows = next(iter(arms)), []
    for busy in (False, True):
        rounds = [
            {name: measured(what, arm, asked.calls, busy=busy) for name, arm in arms.items()}
            for _ in range(asked.rounds)
        ]
        for name in arms:
            milliseconds = Spread.of([1000 * one[name] for one in rounds]).text(1)
            faster = Spread.of([one[plain] / one[name] for one in rounds]).text()
            rows.append((name, "one core busy" if busy else "idle", milliseconds, faster))
    print_table(("process", "machine", f"ms of {what} for 4.5 s", "times as fast"), rows)


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=6, help="of the model in each process")
    parser.add_argument("--here", choices=HERE, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        if asked.keep:
            from featurize.runtime.memory import keep_freed_memory

            keep_freed_memory()
        print(HERE[asked.here](asked.calls))
        return
    print(machine_line())
    compare("wav2vec2", ARMS, asked)
    compare("logmel", LOGMEL_ARMS, asked)


if __name__ == "__main__":
    main()
