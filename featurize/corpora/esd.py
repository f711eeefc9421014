"""ESD: twenty speakers, 350 sentences each in five emotions, in English and in Mandarin (Emotional Speech Database).

Source: Zhou et al., 2021, arXiv:2010.14794, https://github.com/HLTSingapore/Emotional-Speech-Data. For research.
Expects: 0001/Angry/train/0001_000351.wav and so on, in folders of any depth; copies without the folders train,
evaluation and test are read too. Transcripts: 0001.txt in the folder of the speaker: id, text, emotion.
Labels: the emotion of the folder in lower case. Speaker: 0001 to 0020. Text: the transcript. Split: the folder;
evaluation is the development subset. Own columns: language (chinese for 0001 to 0010, english for 0011 to 0020),
gender. No session, no dialogue. The published split shares all speakers between its subsets.

The transcripts of the release are in several encodings: UTF-16 with a byte order mark, UTF-8, GB18030 and cp1252,
and some lines part their columns by spaces. An English file that GB18030 reads with Chinese signs is read as cp1252.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cache.errors import MmerError
from featurize.corpora.base import CorpusReading
from featurize.corpora.file_names import FileNames, read_file_names
from featurize.corpora.folders import files_below
from featurize.corpora.table import decoded

TREE = "ROOT/{0001..0020}/{Angry,Happy,...}/{train,evaluation,test}/0001_000351.wav and ROOT/0001/0001.txt"
SPEAKERS = tuple(f"{number:04d}" for number in range(1, 21))
MALE = frozenset({"0004", "0005", "0006", "0008", "0010", "0011", "0012", "0013", "0014", "0020"})
LAST_CHINESE = "0010"
NAMES = FileNames(
    corpus="esd",
    tree=TREE,
    pattern=re.compile(
        r"(?:[^/]*/)?(?P<emotion>Angry|Happy|Neutral|Sad|Surprise)/(?:(?P<split>train|evaluation|test)/)?"
        r"(?P<speaker>\d{4})_\d{6}",
        re.IGNORECASE,
    ),
    folders=2,
    columns={
        "label": ("emotion", None),
        "speaker": ("speaker", None),
        "split": ("split", None),
        "language": ("speaker", {name: "chinese" if name <= LAST_CHINESE else "english" for name in SPEAKERS}),
        "gender": ("speaker", {name: "male" if name in MALE else "female" for name in SPEAKERS}),
    },
)
SPLITS: Mapping[str, str] = {"evaluation": "dev"}
# Last column of a transcript, in both languages.
EMOTIONS = frozenset({"angry", "happy", "neutral", "sad", "surprise", "生气", "快乐", "中立", "伤心", "惊喜"})
_LINE = re.compile(r"\s*(?P<id>\d{4}_\d{6})\s+(?P<text>.*\S)\s*")
_CHINESE = re.compile("[\u3400-\u9fff]")


def read_esd(root: Path) -> CorpusReading:
    """Reads the recordings below a folder, and the transcripts of their speakers.

    Raises:
        MmerError: if no recording is found, or a file of transcripts cannot be decoded.
    """
    reading = read_file_names(root, NAMES)
    texts: dict[str, str] = {}
    for path in files_below(root)[0]:
        if path.suffix == ".txt" and path.stem in SPEAKERS:
            texts |= read_transcripts(path)
    utterances = [
        replace(
            utterance,
            label=utterance.label.lower(),
            split=SPLITS.get(utterance.split.lower(), utterance.split.lower()),
            text=texts.get(utterance.id, ""),
        )
        for utterance in reading.utterances
    ]
    lacking = sum(not utterance.text for utterance in utterances)
    notes = [*reading.notes, *([f"{lacking} recordings have no transcript"] if lacking else [])]
    return replace(reading, utterances=utterances, notes=notes)


def read_transcripts(path: Path) -> dict[str, str]:
    """Reads the transcripts of one speaker: id -> text.

    Raises:
        MmerError: if the file cannot be read, or no encoding of the release decodes it.
    """
    texts = {}
    for line in _text(path).splitlines():
        if match := _LINE.fullmatch(line):
            *words, last = match["text"].rsplit(maxsplit=1)
            texts[match["id"]] = words[0].strip() if words and last.lower() in EMOTIONS else match["text"]
    return texts


def _text(path: Path) -> str:
    is_english = path.stem > LAST_CHINESE
    for encoding in (None, "gb18030", "cp1252"):
        try:
            text = decoded(path, encoding)
        except MmerError:
            continue
        if encoding != "gb18030" or not is_english or not _CHINESE.search(text):
            return text
    raise MmerError(f"{path} is in none of the encodings UTF-8, UTF-16, GB18030 and cp1252; save it as UTF-8")
