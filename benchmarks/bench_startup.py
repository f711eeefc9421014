"""How fast commands answer before any work: help, lists, and errors in names, paths and settings.

Claim: each takes less than half a second of processor time, as only work needs torch and the other large libraries.
Every run is a process of its own, as a user starts it; the commands take turns. Wall time depends on what else the
machine does, processor time (user and system) much less. Run it by ``python -m benchmarks.bench_startup``.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.support.measure import Spread, machine_line
from cli.output import print_table

TARGET_S = 0.5
COMMANDS = (
    "main --help",
    "main --version",
    "extract --help",
    "maintain --help",
    "maintain doctor --help",
    "train --help",
    "finetune --help",
    "grid --help",
    "compare --help",
    "pretrain --help",
    "predict --help",
    "export --help",
    "extract --list-encoders",
    "extract --list-corpora --json",
    "train --list-heads",
    "train --list-fields rescmfa",
    "train --list-protocols",
    "train --list-recipes",
    "train --published all --json",
    "train --learning-rate 1",
    "extract none",
    "extract demo --encoder none",
    "extract iemocap --root nowhere",
    "maintain info nowhere.h5",
    "train --fusion rescmfa --cache nowhere.h5",
    "train --fusion rescmfa --cache text.h5",
    "grid --fusion rescmfa --cache nowhere.h5 --grid lr=1,2",
    "compare nowhere nowhere-2",
    "predict nowhere call.wav",
    "export nowhere bundle",
    "pretrain --cache nowhere.h5 --encoder wav2vec2-tiny",
    "train --fusion none --cache demo.h5",
    "train --recipe none --cache demo.h5",
    "train --fusion rescmfa --cache demo.h5 --set none=1",
    "train --fusion rescmfa --cache demo.h5 --set gate=none",
    "train --fusion rescmfa --cache demo.h5 --protocol none",
)


@dataclass(frozen=True, kw_only=True)
class Start:
    """Times of one process, in seconds."""

    wall_s: float
    cpu_s: float


def start(command: str, folder: Path) -> Start:
    """Runs a command to its end."""
    module, *arguments = command.split()
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", f"cli.{module}", *arguments], cwd=folder, capture_output=True, check=False)
    wall_s, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Start(wall_s=wall_s, cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def fill(folder: Path, cache: Path | None) -> list[str]:
    """Writes the files that the commands name; returns the commands that have what they need."""
    (folder / "text.h5").write_text("no HDF5 at all\n")
    if cache is not None:
        (folder / "demo.h5").symlink_to(cache.resolve())
    return [command for command in COMMANDS if cache is not None or "demo.h5" not in command]


def main() -> None:
    """Measures and prints everything."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--cache", type=Path, help="cache that errors in settings are measured with, such as the demo's"
    )
    asked = parser.parse_args()
    print(machine_line())
    with tempfile.TemporaryDirectory() as name:
        commands = fill(Path(name), asked.cache)
        rounds = [{command: start(command, Path(name)) for command in commands} for _ in range(asked.rounds)]
    table, slow = [], []
    for command in commands:
        cpu = Spread.of([times[command].cpu_s for times in rounds])
        table.append((command, cpu.text(), Spread.of([times[command].wall_s for times in rounds]).text()))
        if cpu.median >= TARGET_S:
            slow.append(command)
    print_table(("python -m cli.", "processor time, s", "wall time, s"), table)
    met = "MISSED" if slow else "met   "
    print(f"{met} processor time below {TARGET_S:g} s: {len(commands) - len(slow)} of {len(commands)} commands")


if __name__ == "__main__":
    main()
