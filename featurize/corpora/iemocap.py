"""IEMOCAP: ten actors in five dyadic sessions, about twelve hours.

Source: Busso et al., 2008, doi:10.1007/s10579-008-9076-6. Licence by form; nothing is downloaded here.
Expects: ROOT/Session{1..5} with dialog/EmoEvaluation, dialog/transcriptions and sentences/wav.
Labels: kept as published (ang, hap, exc, sad, neu, fru, sur, fea, dis, oth, xxx); merging
    belongs to fusion.protocols.labels.
Text: the published transcripts, including event tags such as [LAUGHTER]; a later stage applies the text policy.
Times: none, since every turn has its own recording; the published times only determine the order of the turns.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.corpora.table import USUAL, decoded

SESSIONS = ("Session1", "Session2", "Session3", "Session4", "Session5")
RELEASE = "IEMOCAP_full_release"
RELEASE_TURNS = 10_039  # Busso et al., 2008
TREE = "ROOT/Session{1..5}/ with dialog/EmoEvaluation/*.txt, dialog/transcriptions/*.txt and sentences/wav/"
STYLES: Mapping[str, str] = {"script": "scripted", "impro": "improvised"}

_NUMBER = r"-?\d+(?:\.\d+)?"
# The gender letter of the turn is that of the speaker; the letter of the dialogue is that of the actor who wore the
# motion capture markers.
_HEADER = re.compile(
    rf"\[(?P<start>{_NUMBER})\s*-\s*(?P<end>{_NUMBER})\]\s+"
    r"(?P<id>(?P<dialogue>(?P<pair>Ses0(?P<session>[1-5]))[FM]_\w+)_(?P<gender>[FM])[A-Z\d]+)\s+"
    rf"(?P<label>\w+)\s+\[(?P<valence>{_NUMBER}),\s*(?P<activation>{_NUMBER}),\s*(?P<dominance>{_NUMBER})\]"
)
_EVALUATION = re.compile(r"C-E\d+:(?P<chosen>[^(]*)\(.*")  # of an annotator; C-F and C-M are of the actors themselves
# Choice of an annotator -> raw label.
_CHOICES: Mapping[str, str] = {
    "neutral": "neu",
    "neutral state": "neu",
    "happiness": "hap",
    "sadness": "sad",
    "anger": "ang",
    "surprise": "sur",
    "fear": "fea",
    "disgust": "dis",
    "frustration": "fru",
    "excited": "exc",
    "other": "oth",
}
_TRANSCRIPT = re.compile(r"(?P<id>\S+)\s*\[[^\]]*\]\s*:(?P<text>.*)")

_UNDECODED = re.compile("[\udc80-\udcff]")  # bytes as surrogateescape decodes them


def read_iemocap(root: Path, *, encoding: str | None = None) -> CorpusReading:
    """Reads the official release; recordings are not opened.

    Args:
        root: the folder that holds Session1 to Session5, or the parent of such an ``IEMOCAP_full_release``.
        encoding: encoding of the transcripts; None for UTF-8.

    Returns:
        All turns, ordered by session, dialogue and start time; a remark for a turn without a transcript or with two;
        a note names the first line that is not UTF-8, if no encoding is given.

    Raises:
        MmerError: if there is no session folder or a file cannot be read.
    """
    release = _release_folder(root)
    evaluations = _text_files(release, "EmoEvaluation")
    transcripts = _text_files(release, "transcriptions")
    utterances: list[Utterance] = []
    remarks: dict[str, str] = {}
    unread: list[str] = []
    undecoded: list[str] = []
    for evaluation in evaluations:
        headers, odd_lines = _headers(evaluation)
        unread += odd_lines
        transcript = _transcript_of(evaluation)
        lines = _lines(transcript, encoding) if transcript in transcripts else []
        texts, repeated = _texts(lines)
        undecoded += [
            f"{transcript.name} line {number}" for number, line in enumerate(lines, 1) if _UNDECODED.search(line)
        ]
        session = evaluation.parents[2].name
        votes = _votes(evaluation)
        utterances += [_utterance(header, turn, session, texts, votes) for turn, header in enumerate(headers)]
        remarks |= _remarks([header["id"] for header in headers], texts, repeated)
    notes = [
        *_session_notes(release),
        *_file_notes(evaluations, transcripts),
        *_count_notes(unread, len(utterances)),
        *_undecoded_notes(undecoded),
    ]
    return CorpusReading(root=release, utterances=utterances, notes=notes, remarks=remarks)


def _release_folder(root: Path) -> Path:
    for folder in (root, root / RELEASE):
        if any((folder / session).is_dir() for session in SESSIONS):
            return folder
    raise MmerError(f"no folder Session1 to Session5 in {root}; expected: {TREE}")


def _text_files(release: Path, kind: str) -> list[Path]:
    """Returns the files directly in ``dialog/<kind>``, except the ``._*`` files of macOS."""
    folders = [release / session / "dialog" / kind for session in SESSIONS]
    paths = [path for folder in folders for path in sorted(folder.glob("*.txt"))]
    return [path for path in paths if path.is_file() and not path.name.startswith("._")]


def _transcript_of(evaluation: Path) -> Path:
    return evaluation.parents[1] / "transcriptions" / evaluation.name


def _lines(path: Path, encoding: str | None = None) -> list[str]:
    if encoding:
        return [line.strip() for line in decoded(path, encoding).split("\n")]
    try:
        # Some releases hold a few other bytes; they become lone surrogates, which the text stage removes with a note.
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise MmerError(f"cannot read {path}: {error.strerror}") from error
    return [line.strip() for line in text.split("\n")]


def _headers(evaluation: Path) -> tuple[list[re.Match[str]], list[str]]:
    """Returns the turn headers by start time, and the unreadable lines that look like headers."""
    headers, unread = [], []
    for number, line in enumerate(_lines(evaluation), start=1):
        header = _HEADER.fullmatch(line)
        if header:
            headers.append(header)
        elif line.startswith("["):
            unread.append(f"{evaluation.name} line {number}")
    return sorted(headers, key=lambda header: (float(header["start"]), float(header["end"]), header["id"])), unread


def _votes(evaluation: Path) -> dict[str, str]:
    """Returns turn -> the choices of its annotators, each chosen category as one vote."""
    votes: dict[str, Counter[str]] = {}
    turn = ""
    for line in _lines(evaluation):
        if line.startswith("["):
            header = _HEADER.fullmatch(line)
            turn = header["id"] if header else ""
        elif turn and (found := _EVALUATION.fullmatch(line)):
            chosen = [_CHOICES.get(choice.strip().lower(), "") for choice in found["chosen"].split(";")]
            votes.setdefault(turn, Counter()).update(filter(None, chosen))
    return {name: ",".join(f"{label}:{count}" for label, count in counts.items()) for name, counts in votes.items()}


def _texts(lines: Sequence[str]) -> tuple[dict[str, str], set[str]]:
    """Returns turn -> text of its first line, and the turns with more than one line."""
    texts: dict[str, str] = {}
    repeated = set()
    for match in filter(None, map(_TRANSCRIPT.fullmatch, lines)):
        if match["id"] in texts:
            repeated.add(match["id"])
        else:
            texts[match["id"]] = match["text"].strip()
    return texts, repeated


def _utterance(
    header: re.Match[str], turn: int, session: str, texts: Mapping[str, str], votes: Mapping[str, str]
) -> Utterance:
    name, dialogue = header["id"], header["dialogue"]
    return Utterance(
        id=name,
        audio=f"{session}/sentences/wav/{dialogue}/{name}.wav",
        text=texts.get(name, ""),
        label=header["label"],
        speaker=header["pair"] + header["gender"],
        session=header["session"],
        dialogue=dialogue,
        turn=turn,
        style=next((style for word, style in STYLES.items() if word in dialogue), ""),
        valence=float(header["valence"]),
        activation=float(header["activation"]),
        dominance=float(header["dominance"]),
        votes=votes.get(name, ""),
    )


def _remarks(names: Sequence[str], texts: Mapping[str, str], repeated: set[str]) -> dict[str, str]:
    remarks = {name: "no transcript line, text left empty" for name in names if name not in texts}
    return remarks | {name: "more than one transcript line, kept the first" for name in names if name in repeated}


def _session_notes(release: Path) -> list[str]:
    missing = [session for session in SESSIONS if not (release / session).is_dir()]
    return [f"no folder {', '.join(missing)} in {release}: their turns are left out"] if missing else []


def _file_notes(evaluations: Sequence[Path], transcripts: Sequence[Path]) -> list[str]:
    expected = {_transcript_of(path) for path in evaluations}
    silent = sorted(path.stem for path in expected.difference(transcripts))
    unrated = sorted(path.stem for path in set(transcripts) - expected)
    notes = []
    if silent:
        notes.append(f"no transcription file for {', '.join(silent)}: their turns have no text")
    if unrated:
        notes.append(f"no EmoEvaluation file for {', '.join(unrated)}: their turns are left out")
    return notes


def _undecoded_notes(undecoded: Sequence[str]) -> list[str]:
    if not undecoded:
        return []
    first = f"{len(undecoded)} lines of transcripts have bytes that are not UTF-8 (first: {undecoded[0]})"
    return [f"{first}: the bytes are left out; name the encoding to keep them, as in --encoding {USUAL}"]


def _count_notes(unread: Sequence[str], turns: int) -> list[str]:
    notes = []
    if unread:
        notes.append(f"{len(unread)} lines of EmoEvaluation look like a turn but cannot be read (first: {unread[0]})")
    if turns != RELEASE_TURNS:
        notes.append(f"{turns} turns found, the full release has {RELEASE_TURNS}")
    return notes
