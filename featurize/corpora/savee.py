"""SAVEE: four English speakers, 480 utterances in seven emotions.

Source: Haq and Jackson, 2010, in Wang (ed.), Machine Audition, chapter 17. Free for research, on registration.
Expects: AudioData/DC/a01.wav and so on: a folder for each speaker, the emotion in the letters of the file name.
Copies with names such as DC_a01.wav are read too.
Labels: the emotion in words. Speaker: the folder, or the letters in front. Own column: sentence, the number of the
text, which counts from 1 within each emotion. The release has no transcripts for each file, no session and no dialogue.
"""

import re
from pathlib import Path

from featurize.corpora.base import CorpusReading
from featurize.corpora.file_names import FileNames, read_file_names

TREE = "ROOT/AudioData/{DC,JE,JK,KL}/a01.wav or DC_a01.wav (wav or flac, folders of any depth)"
NAMES = FileNames(
    corpus="savee",
    tree=TREE,
    pattern=re.compile(r"(?:[^/]*/)?(?P<speaker>DC|JE|JK|KL)[/_](?P<emotion>[a-z]{1,2})(?P<sentence>\d\d)"),
    folders=1,
    identity="{speaker}_{emotion}{sentence}",
    columns={
        "label": (
            "emotion",
            {
                "a": "anger",
                "d": "disgust",
                "f": "fear",
                "h": "happiness",
                "n": "neutral",
                "sa": "sadness",
                "su": "surprise",
            },
        ),
        "speaker": ("speaker", None),
        "sentence": ("sentence", None),
    },
)


def read_savee(root: Path) -> CorpusReading:
    """Reads the recordings below a folder, as `read_file_names` does."""
    return read_file_names(root, NAMES)
