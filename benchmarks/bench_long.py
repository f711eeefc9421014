"""Peak memory of featurizing one long recording in pieces.

    python -m benchmarks.bench_long --hours 1

A FLAC of digital silence takes hardly any bytes, so that a small file can ask for much memory. The recording is
featurized by `wav2vec2-tiny` with ``--chunk`` in a process of its own, with and without log-mel.
"""

import os
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import soundfile

RATE_HZ = 44_100


def write_silence(path: Path, hours: float) -> None:
    """Writes stereo silence, a minute at a time."""
    with soundfile.SoundFile(path, "w", RATE_HZ, 2) as file:
        for _ in range(round(hours * 60)):
            file.write(np.zeros((60 * RATE_HZ, 2), np.int16))


def peak_gb(folder: Path, *more: str) -> tuple[float, float]:
    """Featurizes the recording of a folder; returns the peak memory in GB and the seconds."""
    started = time.monotonic()
    child = os.fork()
    if not child:
        from cli.extract import featurize

        os.chdir(folder)
        arguments = ["manifest", "--root", "m.csv", "--cache", f"c{len(more)}.h5", "--encoder", "wav2vec2-tiny"]
        try:
            featurize(
                [*arguments, "--audio-only", "--no-codes", "--chunk", "--max-seconds", "30", "--json", *more],
                standalone_mode=False,
            )
        finally:
            os._exit(sys.exc_info()[0] is not None)
    _, status, used = os.wait4(child, 0)
    if status:
        raise click.ClickException(f"the run ended with {status}")
    return used.ru_maxrss * 1024 / 1e9, time.monotonic() - started


@click.command()
@click.option("--hours", default=1.0, show_default=True, help="Length of the recording in hours.")
def main(hours: float) -> None:
    """Prints the peak memory."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_silence(folder / "a.flac", hours)
        (folder / "m.csv").write_text("id,audio,text,label,speaker,session\na,a.flac,,x,s,1\n")
        print(f"{hours:g} h of stereo at {RATE_HZ} Hz in {(folder / 'a.flac').stat().st_size / 1e6:.1f} MB")
        for more in (("--no-mel",), ()):
            memory, seconds = peak_gb(folder, *more)
            print(f"wav2vec2-tiny {' '.join(more) or 'and logmel80'}: {memory:.2f} GB, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.exit(main())
