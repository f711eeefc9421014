"""What ``mmer-featurize`` sets for its process on a CPU: kept memory, and OpenMP threads that sleep early.

Claim: kept memory makes a base-size wav2vec 2.0 faster; threads that stop spinning early cost little on an idle machine
and save much on one where another process keeps a core busy. Every measurement is a process of its own, since both
settings are those of a process; the arms take turns. Run it by ``python -m benchmarks.bench_process``.
"""

import argparse
import os
import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks.measure import Spread, machine_line
from cli.options import print_table

ARMS = {"as torch starts": (False, {}), "memory kept": (True, {}), "early sleep": (False, {"GOMP_SPINCOUNT": "1000"})}
ARMS["both, as the command"] = (True, {"GOMP_SPINCOUNT": "1000"})
BUSY = "while True: pass"


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


def measured(arm: str, calls: int, *, busy: bool) -> float:
    """Runs one arm in a process of its own, beside a busy one or not."""
    kept, settings = ARMS[arm]
    command = [sys.executable, "-m", "benchmarks.bench_process", "--calls", str(calls), "--here"]
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"} | settings
    with ExitStack() as stack:
        if busy:
            other = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY]))
            stack.callback(other.kill)
        told = subprocess.run(
            [*command, *(["--keep"] if kept else [])], env=environment, capture_output=True, text=True, check=True
        )
    return float(told.stdout)


def main() -> None:
    """Measures all arms in turn and prints how many times faster than plain each is."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calls", type=int, default=6, help="of the model in each process")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.here:
        if asked.keep:
            from featurize.memory import keep_freed_memory

            keep_freed_memory()
        print(encode_seconds(asked.calls))
        return
    print(machine_line())
    rows = []
    for busy in (False, True):
        rounds = [{arm: measured(arm, asked.calls, busy=busy) for arm in ARMS} for _ in range(asked.rounds)]
        for arm in ARMS:
            seconds = Spread.of([one[arm] for one in rounds]).text()
            faster = Spread.of([one["as torch starts"] / one[arm] for one in rounds]).text()
            rows.append((arm, "one core busy" if busy else "idle", seconds, faster))
    print_table(("process", "machine", "s for 4.5 s of speech", "times as fast"), rows)


if __name__ == "__main__":
    main()
