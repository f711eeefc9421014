"""Demo corpus: ten synthetic speakers in five sessions, 320 utterances, synthesized by numpy in a few seconds.

Source: synthesized here, no download. The module `script` defines the text, the module `voice` the sound.
Writes: ROOT/Session{1..5}/*.wav (16 kHz, mono, 16 bit), then ROOT/demo.csv, an example of the `manifest` format.
Labels: angry, happy, sad, calm, 80 each. Folds: the session, "1" to "5". Ratings: drawn around the label's quadrant.

Sound reveals arousal, words reveal valence, and only both together reveal the emotion. Accuracy of a linear probe
(standardized features, logistic regression) on the mean over time, five folds by session:

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

A linear classifier predicts the letter of a wav2vec2-tiny frame of a held-out session with an accuracy of 0.39 (most
frequent letter: 0.17). Utterances last 0.76 to 5.89 s, 859 s in total.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from cache.errors import MmerError
from cache.files import locked, remove_leftovers
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
# Higher pitch accompanies a shorter vocal tract, as in people; both differ between all speakers.
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
RATING_NOISE = 0.4  # points of the scale; a few ratings cross its middle, as real ratings do
RATINGS_SEED, SOUND_SEED = 2, 3


def read_demo(root: Path) -> CorpusReading:
    """Reads the demo corpus; synthesizes it first if it does not exist.

    Args:
        root: folder of the corpus; created if needed. An interrupted synthesis is repeated.

    Returns:
        The 320 utterances, identical at every call.

    Raises:
        MmerError: if the folder holds a different ``demo.csv``, or cannot be written.
    """
    utterances = [_utterance(index, line) for index, line in enumerate(write_script())]
    manifest = _manifest(utterances)
    try:
        if not _is_complete(root, utterances, manifest):
            _synthesize(root, utterances, manifest)
    except OSError as error:
        reason = error.strerror or error
        raise MmerError(
            f"cannot write the demo corpus to {root}: {reason}; choose another folder with --root"
        ) from error
    return CorpusReading(root=root, utterances=utterances)


def _utterance(index: int, line: Line) -> Utterance:
    """Returns the utterance of a turn of the script, with its ids and its ratings."""
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
    """Returns the utterances as CSV text in the format of the `manifest` corpus."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(FIELDS)
    writer.writerows([getattr(utterance, field) for field in FIELDS] for utterance in utterances)
    return table.getvalue()


def _is_complete(root: Path, utterances: Sequence[Utterance], manifest: str) -> bool:
    """Returns True if the manifest and all recordings exist; the manifest is written last.

    Raises:
        MmerError: if the manifest has other content, since a user may have edited it.
    """
    path = root / MANIFEST
    if not path.is_file():
        return False
    if path.read_text(encoding="utf-8", errors="replace") != manifest:
        raise MmerError(f"{path} is not the table of this demo; choose another folder with --root, or move the file")
    return all((root / utterance.audio).is_file() for utterance in utterances)


def _synthesize(root: Path, utterances: Sequence[Utterance], manifest: str) -> None:
    for folder in {(root / utterance.audio).parent for utterance in utterances}:
        remove_leftovers(folder)
    for index, utterance in enumerate(utterances):
        _write_file(root / utterance.audio, _recording(index, utterance))
    _write_file(root / MANIFEST, manifest.encode())


def _recording(index: int, utterance: Utterance) -> bytes:
    """Returns an utterance as the bytes of a WAV file.

    The arousal of the voice is the rated activation, mapped from 1..5 to -1..1.
    """
    import soundfile  # here: listing the corpora does not need it

    generator = np.random.Generator(np.random.PCG64([SOUND_SEED, index]))
    assert utterance.activation is not None
    arousal = (utterance.activation - 3.0) / 2.0
    wave = speak(utterance.text, voice=VOICES[utterance.speaker], arousal=arousal, generator=generator)
    wav = io.BytesIO()
    soundfile.write(wav, wave, RATE_HZ, format="WAV", subtype="PCM_16")
    return wav.getvalue()


def _write_file(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name and renames it, so that it is complete whenever it exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with locked(temporary):
        temporary.write_bytes(content)
        temporary.replace(path)
