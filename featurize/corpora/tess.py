"""TESS: two Canadian actresses, 2,800 recordings of 200 words in seven emotions (Toronto Emotional Speech Set).

Source: Pichora-Fuller and Dupuis, 2020, doi:10.5683/SP2/E8H2MF, CC BY-NC-ND 4.0.
Expects: OAF_back_angry.wav and so on: actress, word, emotion, in folders of any depth. One file of the release is
called OA_bite_neutral.wav; it is of OAF.
Labels: the emotion of the file name, ``ps`` as pleasant surprise. Speaker: OAF (older) or YAF (younger). Text: the
carrier phrase with the word. Own columns: word, age. No session, no dialogue. Two speakers cannot be divided into
training, development and test subsets without sharing one.
"""

import re
from pathlib import Path

from featurize.corpora.base import CorpusReading
from featurize.corpora.file_names import FileNames, read_file_names

TREE = "ROOT/OAF_angry/OAF_back_angry.wav (wav or flac, folders of any depth)"
NAMES = FileNames(
    corpus="tess",
    tree=TREE,
    pattern=re.compile(r"(?P<speaker>OAF?|YAF)_(?P<word>[a-z]+)_(?P<emotion>[a-z]+)"),
    columns={
        "label": (
            "emotion",
            {
                "angry": "angry",
                "disgust": "disgust",
                "fear": "fear",
                "happy": "happy",
                "neutral": "neutral",
                "ps": "pleasant surprise",
                "sad": "sad",
            },
        ),
        "speaker": ("speaker", {"OAF": "OAF", "OA": "OAF", "YAF": "YAF"}),
        "text": ("word", "Say the word {}"),
        "word": ("word", None),
        "age": ("speaker", {"OAF": "older", "OA": "older", "YAF": "younger"}),
    },
)


def read_tess(root: Path) -> CorpusReading:
    """Reads the recordings below a folder, as `read_file_names` does."""
    return read_file_names(root, NAMES)
