"""Demo: ten synthetic speakers in five sessions, 320 utterances, written by numpy in a few seconds.

Source: made here, no download. What is said stands in `script`, how it sounds in `voice`.
Writes: ROOT/Session{1..5}/*.wav (16 kHz, mono, 16 bit), then ROOT/demo.csv, a sample of the `manifest` format.
Labels: angry, happy, sad, calm, 80 each. Folds: the session, "1" to "5". Ratings: drawn around the label's quadrant.

Sound tells arousal, words tell valence, only both together tell the emotion. Accuracy of a linear probe (standardized,
logistic regression) on the mean over time, five folds by session:

    =========================================  =======  =======  ============
    input                                      arousal  valence  four classes
    =========================================  =======  =======  ============
    wav2vec2-tiny, last hidden state              0.96     0.53          0.50
    roberta-tiny, last hidden state               0.50     0.97          0.48
    both                                          0.95     0.94          0.86
    RMS                                           0.47     0.48          0.23
    duration in seconds                           0.62     0.51          0.28
    letters per second                            0.88     0.51          0.43
    =========================================  =======  =======  ============

A linear classifier tells the letter of a held-out session's wav2vec2-tiny frame with an accuracy of 0.39 (most frequent
letter: 0.17). Utterances last 0.76 to 5.89 s, 859 s in all.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.corpora.demo.script import EMOTIONS, Line, write_script
from featurize.corpora.demo.voice import RATE_HZ, Voice, speak

MANIFEST = "demo.csv"
FIELDS = (
    "id",
    "audio",
    "text",
    "label",
    "speaker",
    "session",
    "dialogue",
    "turn",
    "style",
    "channel",
    "valence",
    "activation",
)
# Higher pitch goes with a shorter vocal tract, as in people; no two speakers share either.
VOICES: Mapping[str, Voice] = {
    "Ses01F": Voice(pitch_hz=205, tract=0.94),
    "Ses01M": Voice(pitch_hz=112, tract=1.06),
    "Ses02F": Voice(pitch_hz=188, tract=0.97),
    "Ses02M": Voice(pitch_hz=128, tract=1.03),
    "Ses03F": Voice(pitch_hz=224, tract=0.92),
    "Ses03M": Voice(pitch_hz=100, tract=1.08),
    "Ses04F": Voice(pitch_hz=196, tract=0.95),
    "Ses04M": Voice(pitch_hz=120, tract=1.05),
    "Ses05F": Voice(pitch_hz=214, tract=0.93),
    "Ses05M": Voice(pitch_hz=106, tract=1.07),
}
RATING_NOISE = 0.4  # points of the scale; a few ratings cross its middle, as real ones do
RATINGS_SEED, SOUND_SEED = 2, 3


def read_demo(root: Path) -> CorpusReading:
    """Reads the demo corpus and synthesizes it first unless it is already there.

    Args:
        root: folder of the corpus; created if needed. A synthesis that was killed is done again.

    Returns:
        The 320 utterances, the same ones at every call.

    Raises:
        MmerError: if the folder holds another ``demo.csv``, or cannot be written.
    """
    utterances = [_utterance(index, line) for index, line in enumerate(write_script())]
    manifest = _manifest(utterances)
    try:
        if not _is_complete(root, utterances, manifest):
            _synthesize(root, utterances, manifest)
    except OSError as error:
        reason = error.strerror or error
        raise MmerError(f"cannot write the demo corpus to {root}: {reason}; name another folder by --root") from error
    return CorpusReading(root=root, utterances=utterances)


def _utterance(index: int, line: Line) -> Utterance:
    """Gives a turn of the script its names and its ratings."""
    speaker = f"Ses{line.session:02d}{line.sex}"
    name = f"{speaker}_d{line.dialogue:02d}_{line.turn:03d}"
    noise = np.random.Generator(np.random.PCG64([RATINGS_SEED, index])).normal(scale=RATING_NOISE, size=2)
    activation, valence = np.clip(EMOTIONS[line.label] + noise, 1.0, 5.0).round(1).tolist()
    return Utterance(
        id=name,
        audio=f"Session{line.session}/{name}.wav",
        text=line.text,
        label=line.label,
        speaker=speaker,
        session=str(line.session),
        dialogue=f"Ses{line.session:02d}_d{line.dialogue:02d}",
        turn=line.turn,
        style=line.style,
        channel="speech",
        valence=valence,
        activation=activation,
    )


def _manifest(utterances: Sequence[Utterance]) -> str:
    """Writes the utterances as a table in the format of the `manifest` corpus."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([getattr(utterance, field) for field in FIELDS] for utterance in utterances)
    return table.getvalue()


def _is_complete(root: Path, utterances: Sequence[Utterance], manifest: str) -> bool:
    """Tells whether everything is there; the manifest is written last, so it vouches for a finished synthesis.

    Raises:
        MmerError: if the manifest is another one, which somebody may have edited.
    """
    path = root / MANIFEST
    if not path.is_file():
        return False
    if path.read_text(encoding="utf-8", errors="replace") != manifest:
        raise MmerError(f"{path} is not the table of this demo; name another folder by --root, or move it away")
    return all((root / utterance.audio).is_file() for utterance in utterances)


def _synthesize(root: Path, utterances: Sequence[Utterance], manifest: str) -> None:
    for index, utterance in enumerate(utterances):
        _put(root / utterance.audio, _recording(index, utterance))
    _put(root / MANIFEST, manifest.encode())


def _recording(index: int, utterance: Utterance) -> bytes:
    """Synthesizes an utterance, excited as far as its activation is rated above the middle, as a WAV file."""
    import soundfile  # here: corpora can be listed without it

    generator = np.random.Generator(np.random.PCG64([SOUND_SEED, index]))
    assert utterance.activation is not None
    arousal = (utterance.activation - 3.0) / 2.0
    wave = speak(utterance.text, voice=VOICES[utterance.speaker], arousal=arousal, generator=generator)
    wav = io.BytesIO()
    soundfile.write(wav, wave, RATE_HZ, format="WAV", subtype="PCM_16")
    return wav.getvalue()


def _put(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that it is never seen half written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)
