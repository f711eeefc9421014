"""RAVDESS: 24 actors speak and sing two statements in eight emotions.

Source: Livingstone and Russo, 2018, doi:10.1371/journal.pone.0196391. CC BY-NC-SA 4.0; nothing is downloaded here.
Expects: ROOT/Actor_01/03-01-06-01-02-01-12.wav and so on; only the file names count, in folders of any depth.
Labels: the emotion of the file name in words. Speaker: the actor. Text: the statement. Own columns: intensity
(normal or strong), statement (1 or 2), repetition (1 or 2), gender (of the actor: odd numbers are male). No
session, no dialogue.
"""

import re
from pathlib import Path

from featurize.corpora.base import CorpusReading
from featurize.corpora.file_names import FileNames, read_file_names

TREE = "ROOT/Actor_{01..24}/03-01-06-01-02-01-12.wav (wav or flac, folders of any depth)"
_OTHER_MODALITY = "of another modality than 03 (audio only)"
NAMES = FileNames(
    corpus="ravdess",
    tree=TREE,
    pattern=re.compile(
        r"(?P<modality>\d\d)-(?P<channel>\d\d)-(?P<emotion>\d\d)-(?P<intensity>\d\d)-(?P<statement>\d\d)"
        r"-(?P<repetition>\d\d)-(?P<actor>\d\d)"
    ),
    skipped={"modality": {"01": _OTHER_MODALITY, "02": _OTHER_MODALITY, "03": ""}},
    columns={
        "channel": ("channel", {"01": "speech", "02": "song"}),
        "label": (
            "emotion",
            {
                "01": "neutral",
                "02": "calm",
                "03": "happy",
                "04": "sad",
                "05": "angry",
                "06": "fearful",
                "07": "disgust",
                "08": "surprised",
            },
        ),
        "intensity": ("intensity", {"01": "normal", "02": "strong"}),
        "statement": ("statement", {"01": "1", "02": "2"}),
        "text": ("statement", {"01": "Kids are talking by the door", "02": "Dogs are sitting by the door"}),
        "repetition": ("repetition", {"01": "1", "02": "2"}),
        "speaker": ("actor", None),
        "gender": ("actor", {f"{actor:02d}": "male" if actor % 2 else "female" for actor in range(1, 25)}),
    },
)


def read_ravdess(root: Path) -> CorpusReading:
    """Reads speech and song from the file names below a folder, as `read_file_names` does."""
    return read_file_names(root, NAMES)
