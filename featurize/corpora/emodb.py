"""EMO-DB: ten German actors, 535 utterances in seven emotions (Berlin Database of Emotional Speech).

Source: Burkhardt et al., 2005, doi:10.21437/Interspeech.2005-446, http://emodb.bilderbar.info.
Expects: wav/03a01Fa.wav and so on: speaker (2 digits), text (3 signs), emotion (1 letter), version, folders of any
depth.
Labels: the German letter of the file name as an English word. Speaker: the two digits. Text: the sentence in German, as
published. Own columns: gender, sentence. No session, no dialogue.
"""

import re
from pathlib import Path

from featurize.corpora.base import CorpusReading
from featurize.corpora.file_names import FileNames, read_file_names

TREE = "ROOT/wav/03a01Fa.wav (wav or flac, folders of any depth)"
SPEAKERS = {
    "03": "male",
    "08": "female",
    "09": "female",
    "10": "male",
    "11": "male",
    "12": "male",
    "13": "female",
    "14": "female",
    "15": "male",
    "16": "female",
}
SENTENCES = {
    "a01": "Der Lappen liegt auf dem Eisschrank.",
    "a02": "Das will sie am Mittwoch abgeben.",
    "a04": "Heute abend könnte ich es ihm sagen.",
    "a05": "Das schwarze Stück Papier befindet sich da oben neben dem Holzstück.",
    "a07": "In sieben Stunden wird es soweit sein.",
    "b01": "Was sind denn das für Tüten, die da unter dem Tisch stehen?",
    "b02": "Sie haben es gerade hochgetragen und jetzt gehen sie wieder runter.",
    "b03": "An den Wochenenden bin ich jetzt immer nach Hause gefahren und habe Agnes besucht.",
    "b09": "Ich will das eben wegbringen und dann mit Karl was trinken gehen.",
    "b10": "Die wird auf dem Platz sein, wo wir sie immer hinlegen.",
}
NAMES = FileNames(
    corpus="emodb",
    tree=TREE,
    pattern=re.compile(r"(?P<speaker>\d\d)(?P<sentence>[ab]\d\d)(?P<emotion>[A-Z])[a-z]?"),
    columns={
        "label": (
            "emotion",
            {
                "W": "anger",
                "L": "boredom",
                "E": "disgust",
                "A": "fear",
                "F": "happiness",
                "T": "sadness",
                "N": "neutral",
            },
        ),
        "speaker": ("speaker", None),
        "text": ("sentence", SENTENCES),
        "gender": ("speaker", SPEAKERS),
        "sentence": ("sentence", None),
    },
)


def read_emodb(root: Path) -> CorpusReading:
    """Reads the recordings below a folder, as `read_file_names` does."""
    return read_file_names(root, NAMES)
