"""Fuzzing of the readers of tables and corpus text files: whatever the bytes, a result or one line.

Run: python benchmarks/fuzz_tables.py [SECONDS]. Bytes are built by hypothesis from tables, their pieces and noise.
A finding is an exception other than MmerError, a message of several lines, a result that cannot be stored, or a reader
that takes more than ten seconds; the input is printed, and the exit code is 1.
"""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cache.errors import MmerError
from featurize.corpora.base import CorpusReading
from featurize.corpora.iemocap import read_iemocap
from featurize.corpora.manifest import COLUMNS, read_manifest
from featurize.corpora.meld import COLUMNS as MELD_COLUMNS
from featurize.corpora.meld import read_meld
from fusion.end_to_end.prediction.listing import read_texts

SECONDS, LIMIT_S, LONGEST = 300.0, 10.0, 2000  # duration, slowest file, characters of a message
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1")
SIGNS = [*",;\t\n\r\"'|=", "\r\n", '""', "\0", "\ufeff", "\ufffd", "\u2028", "\x85", "\ud800", "nan", "NaN", "<NA>"]
VALUES = [*SIGNS, "null", "1.0", "-1", "1e999", "9" * 400, "[]", "{}", "true", "a.wav", "../x.wav", "hi", "\u00e9"]
IEMOCAP_LINE = "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]"
IEMOCAP_TEXT = "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me."
SPANS = st.sampled_from([IEMOCAP_LINE, IEMOCAP_TEXT, "[", "]:", "9" * 5000, "[1 - 2]", "Ses01F_impro01_F000", "neu"])

cells = st.sampled_from(VALUES) | st.text(max_size=6)
names = st.sampled_from(COLUMNS + MELD_COLUMNS + ("file", "emotion", "Speaker", "")) | st.text(max_size=4)


@st.composite
def tables(draw: st.DrawFn) -> str:
    """Draws a table that is nearly valid: a header, rows that may have other widths, any delimiter."""
    delimiter = draw(st.sampled_from([",", ";", "\t", "|"]))
    header = draw(st.lists(names, max_size=8))
    rows = draw(st.lists(st.lists(cells, max_size=9), max_size=5))
    return "\n".join(delimiter.join(row) for row in [header, *rows])


@st.composite
def objects(draw: st.DrawFn) -> str:
    """Draws lines of JSON, valid ones and pieces."""
    values = st.sampled_from(["NaN", "null", "1.0", "1e999", '"x"', '"\\ud800"', '"\\u0000"', "[" * 2000, "true", "-0"])
    pairs = st.lists(st.tuples(names, values), max_size=6)
    lines = draw(st.lists(pairs, max_size=4))
    return "\n".join("{" + ", ".join(f'"{name}": {value}' for name, value in line) + "}" for line in lines)


def contents() -> st.SearchStrategy[bytes]:
    """Draws the bytes of a file."""
    text = tables() | objects() | st.lists(SPANS | cells, max_size=12).map(" ".join) | st.text(max_size=60)
    return st.binary(max_size=80) | st.builds(
        lambda words, encoding: words.encode(encoding, "replace"), text, st.sampled_from(ENCODINGS)
    )


def manifest(folder: Path, content: bytes, suffix: str) -> CorpusReading:
    """Reads the bytes as a manifest."""
    (folder / f"t{suffix}").write_bytes(content)
    return read_manifest(folder / f"t{suffix}")


def texts(folder: Path, content: bytes, suffix: str) -> None:
    """Reads the bytes as a table of transcripts."""
    (folder / f"t{suffix}").write_bytes(content)
    read_texts(folder / f"t{suffix}")


def meld(folder: Path, content: bytes, suffix: str) -> CorpusReading:
    """Reads the bytes as a table of MELD."""
    (folder / "dev_sent_emo.csv").write_bytes(content)
    return read_meld(folder)


def iemocap(folder: Path, content: bytes, suffix: str) -> CorpusReading:
    """Reads the bytes as an evaluation and a transcript of IEMOCAP."""
    for kind in ("EmoEvaluation", "transcriptions"):
        (folder / "Session1/dialog" / kind).mkdir(parents=True, exist_ok=True)
        (folder / "Session1/dialog" / kind / "Ses01F_impro01.txt").write_bytes(content)
    return read_iemocap(folder)


READERS: Mapping[str, Callable[[Path, bytes, str], CorpusReading | None]] = {
    "manifest": manifest,
    "texts": texts,
    "meld": meld,
    "iemocap": iemocap,
}


def find_fault(reader: str, content: bytes, suffix: str) -> str:
    """Reads some bytes; returns what is wrong with the outcome, or ""."""
    started = time.monotonic()
    try:
        with TemporaryDirectory() as folder:
            reading = READERS[reader](Path(folder), content, suffix)
    except MmerError as error:
        reading = None
        if "\n" in str(error) or len(str(error)) > LONGEST:
            return f"a message of {len(str(error))} characters or of several lines: {error!r}"[:300]
    except Exception as error:  # what a fuzzer looks for
        return f"{type(error).__name__}: {error}"[:300]
    for utterance in reading.utterances if reading else ():
        names_of = (utterance.id, utterance.label, utterance.speaker, utterance.session, utterance.audio)
        for name in names_of:
            with suppress(UnicodeEncodeError):
                if "\0" not in name.encode().decode():
                    continue
            return f"a name that cannot be stored: {name!r}"
    seconds = time.monotonic() - started
    return f"{seconds:.1f} s" if seconds > LIMIT_S else ""


def fuzz(seconds: float) -> int:
    """Fuzzes all readers for some seconds; prints the findings and returns their number."""
    end, tried = time.monotonic() + seconds, 0
    found: dict[str, str] = {}

    @settings(max_examples=500, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(READERS)), contents(), st.sampled_from([".csv", ".tsv", ".jsonl"]))
    def attempt(reader: str, content: bytes, suffix: str) -> None:
        nonlocal tried
        tried += 1
        fault = find_fault(reader, content, suffix) if time.monotonic() < end else ""
        if fault:
            found.setdefault(f"{reader}: {fault[:60]}", f"{reader} {suffix} {content[:2000]!r}: {fault}")

    while time.monotonic() < end:
        attempt()
    print(f"{tried} files in {seconds:.0f} s, {len(found)} kinds of findings")
    for line in found.values():
        print(line)
    return len(found)


if __name__ == "__main__":
    sys.exit(bool(fuzz(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)))
