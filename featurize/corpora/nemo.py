"""nEMO: nine Polish actors, 4,481 recordings in six emotions.

Source: Christop, 2024, arXiv:2404.06292, https://github.com/amu-cai/nEMO, CC BY-NC-SA 4.0.
Expects: data.tsv in ROOT or below, and the recordings in the folder samples next to it.
Labels: the emotion as published. Speaker: as published. Text: raw_text, the orthographic transcript. Own columns:
gender, age, sentence (the number in the file name). No session, no dialogue, no published split.
"""

from pathlib import Path

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading, with_texts
from featurize.corpora.table import nearest_file, read_released

TREE = "ROOT/data.tsv and ROOT/samples/*.wav"
COLUMNS = ("file_id", "emotion", "raw_text", "speaker_id", "gender", "age")


def read_nemo(root: Path) -> CorpusReading:
    """Reads data.tsv; recordings are not opened.

    Raises:
        MmerError: if there is no data.tsv, or it cannot be read or lacks a column.
    """
    table = nearest_file(root, "data.tsv")
    if table is None:
        raise MmerError(f"no data.tsv of nemo found in {root}; expected: {TREE}")
    utterances = []
    for row in read_released(table, COLUMNS):
        stem = row.text("file_id").strip().removesuffix(".wav")
        utterance = Utterance(
            id=stem,
            audio=f"samples/{stem}.wav",
            text=row.text("raw_text"),
            label=row.text("emotion").strip(),
            speaker=row.text("speaker_id").strip(),  # the release has white space in front of it
        )
        further = {name: row.text(name).strip() for name in ("gender", "age")}
        utterances.append(with_texts(utterance, {**further, "sentence": stem.rpartition("_")[2]}))
    return CorpusReading(root=table.parent, utterances=utterances)
