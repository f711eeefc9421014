"""MSP-Podcast: turns of podcasts, with emotions and rated dimensions; release 1.11 has 151,654, release 2.0 264,705.

Source: Lotfian and Busso, 2019, doi:10.1109/TAFFC.2017.2736999; https://www.lab-msp.com (licence by form).
Expects: Labels/labels_consensus.csv (or .json) in ROOT or below, and next to Labels the folders Audios and, if it
is there, Transcripts with NAME.txt.
Labels: the letter of EmoClass in words; X as ``no agreement``, O as other. Ratings: EmoVal, EmoAct and EmoDom, 1 to 7.
Speaker: SpkrID; empty where it is Unknown. Split: Split_Set as published (Train, Development, Test1, Test2, Test3). Own
column: gender. Text: the transcript, empty where there is none. No session, no dialogue.

Test3 of the release has no labels, no speakers and no transcripts; its rows, if a table has any, have empty columns.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from cache.errors import MmerError
from cache.json_text import parse_json
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading, with_texts
from featurize.corpora.table import Row, decoded, nearest_file, read_released

TREE = "ROOT/Labels/labels_consensus.csv (or .json), ROOT/Audios/*.wav and ROOT/Transcripts/*.txt"
COLUMNS = ("FileName", "EmoClass", "EmoAct", "EmoVal", "EmoDom", "SpkrID", "Gender", "Split_Set")
EMOTIONS: Mapping[str, str] = {
    "A": "angry",
    "S": "sad",
    "H": "happy",
    "U": "surprise",
    "F": "fear",
    "D": "disgust",
    "C": "contempt",
    "N": "neutral",
    "O": "other",
    "X": "no agreement",
}
UNKNOWN = frozenset({"", "unknown"})


def read_msp_podcast(root: Path) -> CorpusReading:
    """Reads the consensus labels and the transcripts; recordings are not opened.

    Raises:
        MmerError: if there are no consensus labels, or a file cannot be read or has another form.
    """
    labels = nearest_file(root, "labels_consensus.csv") or nearest_file(root, "labels_consensus.json")
    if labels is None:
        raise MmerError(f"no labels_consensus.csv of msp-podcast found in {root}; expected: {TREE}")
    rows = read_released(labels, COLUMNS) if labels.suffix == ".csv" else _json_rows(labels)
    home = labels.parent.parent if labels.parent.name == "Labels" else labels.parent
    transcripts = home / "Transcripts"
    has_transcripts = transcripts.is_dir()
    utterances = [_utterance(row, transcripts if has_transcripts else None) for row in rows]
    notes = [] if has_transcripts else [f"no folder {transcripts}: utterances have no text"]
    return CorpusReading(root=home, utterances=utterances, notes=notes)


def _utterance(row: Row, transcripts: Path | None) -> Utterance:
    name = row.text("FileName").strip()
    stem = name.removesuffix(".wav")
    letter = row.text("EmoClass").strip()
    if letter and letter not in EMOTIONS:
        raise row.error(f"EmoClass must be one of {', '.join(EMOTIONS)} or empty, got {letter!r}")
    speaker = row.text("SpkrID").strip()
    path = transcripts / f"{stem}.txt" if transcripts else None
    utterance = Utterance(
        id=stem,
        audio=f"Audios/{name}",
        text=" ".join(decoded(path).split()) if path and path.is_file() else "",
        label=EMOTIONS.get(letter, ""),
        speaker="" if speaker.lower() in UNKNOWN else speaker,
        split=row.text("Split_Set").strip(),
        valence=row.number("EmoVal"),
        activation=row.number("EmoAct"),
        dominance=row.number("EmoDom"),
    )
    gender = row.text("Gender").strip().lower()
    return with_texts(utterance, {"gender": "" if gender in UNKNOWN else gender})


def _json_rows(path: Path) -> Iterator[Row]:
    """Yields the entries of labels_consensus.json: file name -> its columns."""
    try:
        table = parse_json(decoded(path), finite=False)
    except ValueError as error:
        raise MmerError(f"{path} is not JSON ({error}); use the file of the release") from error
    if not isinstance(table, dict) or not all(isinstance(columns, dict) for columns in table.values()):
        raise MmerError(f"{path} is not an object of file names; use the file of the release")
    for number, (name, columns) in enumerate(table.items(), start=1):
        yield Row(path=path, line=number, cells={"FileName": name, **columns})
