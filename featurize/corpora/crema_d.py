"""CREMA-D: 91 actors, 7,442 clips of twelve sentences in six emotions, rated by 2,443 people.

Source: Cao et al., 2014, doi:10.1109/TAFFC.2014.2336244, https://github.com/CheyneyComputerScience/CREMA-D.
Expects: AudioWAV/1001_DFA_ANG_XX.wav and so on: actor, sentence, emotion, level, in folders of any depth; and, if
they are there, VideoDemographics.csv, processedResults/summaryTable.csv and processedResults/tabulatedVotes.csv.
Labels: the emotion that the actor intended, from the file name. Speaker: the actor. Text: the sentence. No session, no
dialogue. Own columns:
    sentence, level: of the file name.
    gender, age: of the actor, from VideoDemographics.csv.
    vote: emotion with most votes of the raters who only heard the clip (VoiceVote of summaryTable.csv), in words; empty
        where several have most votes. ``--column label=vote`` makes it the label.
    votes: all votes of these raters (tabulatedVotes.csv, rows whose number begins with 1, the number of the voice-only
        query), such as ``neutral:10,happy:1``.

tabulatedVotes.csv counts the answers of finishedResponses.csv, which is therefore not read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from featurize.corpora.base import CorpusReading, with_texts
from featurize.corpora.file_names import FileNames, read_file_names
from featurize.corpora.table import Row, nearest_file, read_released

TREE = "ROOT/AudioWAV/1001_DFA_ANG_XX.wav (wav or flac, folders of any depth)"
EMOTIONS = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
VOTED: Mapping[str, str] = {emotion[0]: word for emotion, word in EMOTIONS.items()}  # letter in the tables of votes
SENTENCES = {
    "IEO": "It's eleven o'clock",
    "TIE": "That is exactly what happened",
    "IOM": "I'm on my way to the meeting",
    "IWW": "I wonder what this is about",
    "TAI": "The airplane is almost full",
    "MTI": "Maybe tomorrow it will be cold",
    "IWL": "I would like a new alarm clock",
    "ITH": "I think I have a doctor's appointment",
    "DFA": "Don't forget a jacket",
    "ITS": "I think I've seen this before",
    "TSI": "The surface is slick",
    "WSI": "We'll stop in a couple of minutes",
}
# X: an early copy of the release has the name 1040_ITH_SAD_X.wav
LEVELS = {"LO": "low", "MD": "medium", "HI": "high", "XX": "unspecified", "X": "unspecified"}
NAMES = FileNames(
    corpus="crema-d",
    tree=TREE,
    pattern=re.compile(r"(?P<actor>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})_(?P<level>[A-Z]{1,2})"),
    columns={
        "label": ("emotion", EMOTIONS),
        "speaker": ("actor", None),
        "text": ("sentence", SENTENCES),
        "sentence": ("sentence", None),
        "level": ("level", LEVELS),
    },
)
DEMOGRAPHICS, SUMMARY, VOTES = "VideoDemographics.csv", "summaryTable.csv", "tabulatedVotes.csv"
VOICE_ONLY = "1"  # first digit of the row numbers of the voice-only query


def read_crema_d(root: Path) -> CorpusReading:
    """Reads the clips below a folder, and the tables on actors and votes where the release has them.

    Raises:
        MmerError: if no recording is found, or a table lacks a column.
    """
    reading = read_file_names(root, NAMES)
    actors = {row.text("ActorID"): row for row in _rows(root, DEMOGRAPHICS, ("ActorID", "Age", "Sex"))}
    majority = {row.text("FileName"): row.text("VoiceVote") for row in _rows(root, SUMMARY, ("FileName", "VoiceVote"))}
    voice = [row for row in _rows(root, VOTES, ("", "fileName", *VOTED)) if row.text("").startswith(VOICE_ONLY)]
    votes = {row.text("fileName"): _votes(row) for row in voice}
    lacking = [name for name, rows in ((DEMOGRAPHICS, actors), (SUMMARY, majority), (VOTES, votes)) if not rows]
    utterances = []
    for utterance in reading.utterances:
        actor = actors.get(utterance.speaker)
        texts = {
            "gender": actor.text("Sex").lower() if actor else "",
            "age": actor.text("Age") if actor else "",
            "vote": VOTED.get(majority.get(utterance.id, ""), ""),
            "votes": votes.get(utterance.id, ""),
        }
        utterances.append(with_texts(utterance, texts))
    notes = [*reading.notes, *(f"no {name} in {root} or below: its columns are left out" for name in lacking)]
    return replace(reading, utterances=utterances, notes=notes)


def _votes(row: Row) -> str:
    """Returns all votes on a clip, most first."""
    counts = {word: row.count(letter) or 0 for letter, word in VOTED.items()}
    voted = sorted((word for word in counts if counts[word]), key=lambda word: -counts[word])
    return ",".join(f"{word}:{counts[word]}" for word in voted)


def _rows(root: Path, name: str, columns: Sequence[str]) -> list[Row]:
    """Returns the rows of a table of the release; none if it is not there."""
    table = nearest_file(root, name)
    return list(read_released(table, columns)) if table else []
