"""Reads recordings with changed bytes and checks that each ends in one line or in a sound of the stated length.

    python -m benchmarks.fuzz_audio --files 20000

Bytes of small valid files of every container are overwritten, repeated, cut out, joined or set to extreme numbers,
mostly in their headers. Each file is measured and loaded, whole and in pieces, in a process of its own kind that may
crash or hang without harm: both are findings, as are every error that is not a `RecordingError`, a waveform of another
length than planned, and a process that needs more memory than `MEMORY_BYTES`. A finding is printed with its seed, which
makes it again.
"""

import io
import os
import random
import resource
import signal
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import av
import click
import numpy as np
import soundfile

from featurize.inputs.audio import RecordingError, cut, load, probe

HANG_S = 20
MEMORY_BYTES = 3 << 30  # address space that a process may add to what it has
HEADER_BYTES = 128  # most changes are here
NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0xFF, 0xFFFF, 2**31 - 1, 2**32 - 1, 2**36 - 1, 2**40, 2**63 - 1, 2**64 - 1)
SOUNDS = {  # name -> format and subtype of libsndfile
    "wav": ("WAV", "PCM_16"),
    "gsm": ("WAV", "GSM610"),
    "adpcm": ("WAV", "IMA_ADPCM"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "aiff": ("AIFF", "PCM_16"),
    "au": ("AU", "PCM_16"),
    "caf": ("CAF", "ALAC_16"),
    "nist": ("NIST", "PCM_16"),
    "voc": ("VOC", "PCM_U8"),
    "sds": ("SDS", "PCM_16"),
    "avr": ("AVR", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "vorbis": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}
OTHERS = {"mp4": "aac", "mkv": "pcm_s16le", "wv": "wavpack", "tta": "tta", "aac": "aac", "avi": "pcm_s16le"}


def write_seeds() -> dict[str, bytes]:
    """Writes a short sound in every container; returns their bytes by name."""
    sound = (0.2 * np.random.default_rng(0).standard_normal((4000, 1))).clip(-0.9, 0.9).astype(np.float32)
    seeds = {}
    for name, (kind, subtype) in SOUNDS.items():
        file = io.BytesIO()
        soundfile.write(file, sound, 16_000, format=kind, subtype=subtype)
        seeds[name] = file.getvalue()
    for name, codec in OTHERS.items():
        file = io.BytesIO()
        file.name = f"a.{name}"
        with av.open(file, "w", format={"mkv": "matroska", "aac": "adts"}.get(name, name)) as container:
            track: Any = container.add_stream(codec, rate=16_000, layout="mono")
            known = [form.name for form in track.codec.audio_formats or ()]
            track.format = av.AudioFormat(next((form for form in known if form.startswith("s16")), known[0]))
            frame = av.AudioFrame.from_ndarray(sound.T.copy(), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, 0
            resampler = av.AudioResampler(
                track.format, "mono", 16_000, frame_size=track.codec_context.frame_size or None
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                container.mux(track.encode(part))
            container.mux(track.encode(None))
        seeds[name] = file.getvalue()
    return seeds


def mutate(seeds: dict[str, bytes], seed: int) -> tuple[str, bytes]:
    """Returns the name and the bytes of a file with one to four changes, which the seed decides."""
    chance = random.Random(seed)
    name = chance.choice(sorted(seeds))
    changed = bytearray(seeds[name])
    for _ in range(chance.choice((1, 1, 2, 4))):
        start = chance.randrange(min(HEADER_BYTES, len(changed)) if chance.random() < 0.7 else len(changed))
        kind = chance.randrange(7)
        if kind == 0:
            changed[start : start + 1] = bytes([chance.randrange(256)])
        elif kind == 1:
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice(NUMBERS) % 2 ** (8 * size)
            changed[start : start + size] = number.to_bytes(size, chance.choice(("little", "big")))
        elif kind == 2:
            changed[start : start + 1] = bytes([changed[start] ^ 1 << chance.randrange(8)])
        elif kind == 3:
            source = chance.randrange(len(changed))
            changed[start:start] = changed[source : source + chance.choice((1, 8, 64, 512))]
        elif kind == 4:
            del changed[start : start + chance.choice((1, 2, 16, 1000))]
        elif kind == 5:
            del changed[max(1, chance.randrange(len(changed))) :]
        else:
            changed += chance.choice([seeds[name], seeds[chance.choice(sorted(seeds))], bytes(50), b"TAG".ljust(128)])
        changed = changed or bytearray(b"\0")
    return name, bytes(changed)


def read(path: Path) -> str:
    """Reads a recording whole and in pieces; returns the kind of its end."""
    try:
        recording = probe(path)
        span = cut(recording, None, None)
        if span.samples > 16_000 * 3600:
            return "long"
        loaded = load(span)
        if len(loaded.waveform) != span.samples:
            raise ValueError(f"{len(loaded.waveform)} samples, {span.samples} planned")
        pieces = load(span, pieces=True).waveform
        joined = np.concatenate([pieces[start : start + 999] for start in range(0, len(pieces), 999)])
        if not np.array_equal(joined, loaded.waveform):
            raise ValueError("the pieces differ from the whole")
    except RecordingError as error:
        return f"refused: {str(error).split(':')[0][:40]}"
    return "noted" if loaded.note else "read"


def run_one(path: Path, seed: int) -> str:
    """Reads a file in a child process; returns the kind of its end, or a finding."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        try:
            for stream in (1, 2):  # on which libraries report errors
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
            signal.alarm(HANG_S)
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
            os.write(writer, read(path).encode())
            status = 0
        except BaseException:
            os.write(writer, f"FINDING seed {seed}\n{traceback.format_exc()}".encode()[-4000:])
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        said = answers.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return f"FINDING seed {seed}: ended by signal {os.WTERMSIG(status)}"
    return said


@click.command()
@click.option("--files", default=2000, show_default=True, help="Number of changed files.")
@click.option("--seed", default=0, show_default=True, help="Seed of the first file.")
@click.option("--seconds", default=1e9, help="Seconds after which no further file is read.")
def main(files: int, seed: int, seconds: float) -> None:
    """Reads changed recordings; exits with 1 if there was a finding."""
    seeds, ends, findings = write_seeds(), Counter[str](), 0
    started = time.monotonic()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        for number in range(seed, seed + files):
            if time.monotonic() - started > seconds:
                break
            name, content = mutate(seeds, number)
            path.write_bytes(content)
            end = run_one(path, number)
            if end.startswith("FINDING"):
                findings += 1
                print(f"{name}: {end}", flush=True)
                end = "finding"
            ends[end] += 1
    print(f"{sum(ends.values())} files in {time.monotonic() - started:.0f} s, {findings} findings")
    for end, count in ends.most_common():
        print(f"{count:6}  {end}")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
