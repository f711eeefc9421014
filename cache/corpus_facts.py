"""Published facts of corpora: counts of utterances by class and subset, and clips that are known to be broken.

IEMOCAP: counts by session, happy and excited merged, from the index in the MMER repository (5531 utterances);
the release has 10,039 turns (Busso et al., 2008, doi:10.1007/s10579-008-9076-6).
RAVDESS: 60 speech recordings of each of 24 actors and 44 songs of each of 23 (Livingstone and Russo, 2018,
doi:10.1371/journal.pone.0196391).
MELD: utterances, emotions and dialogues counted from its csv files, sentiments from the paper (Poria et al., 2019,
arXiv:1810.02508, https://affective-meld.github.io).
All others: totals from the papers and pages that the readers of `featurize.corpora` name. The counts by label of
CREMA-D, EMO-DB, nEMO and MSP-IMPROV and the splits of ESD, CMU-MOSI and CMU-MOSEI add up to these totals, and were not
compared with a release. The splits of MSP-Podcast are those of release 1.11 on the page of its laboratory; of release
2.0 the total alone. Those of CMU-MOSEI are of the 22,856 segments in label.csv; its paper counts 23,453.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

Counts = Mapping[str, int]
Table = Mapping[str, Counts]

IEMOCAP_TURNS = 10_039
IEMOCAP_CLASSES: Mapping[str, str] = {"ang": "ang", "hap": "hap", "exc": "hap", "neu": "neu", "sad": "sad"}
IEMOCAP_SESSIONS: Table = {
    "1": {"ang": 229, "hap": 278, "neu": 384, "sad": 194},
    "2": {"ang": 137, "hap": 327, "neu": 362, "sad": 197},
    "3": {"ang": 240, "hap": 286, "neu": 320, "sad": 305},
    "4": {"ang": 327, "hap": 303, "neu": 258, "sad": 143},
    "5": {"ang": 170, "hap": 442, "neu": 384, "sad": 245},
}

RAVDESS_SPEECH: Counts = {
    "neutral": 96,
    "calm": 192,
    "happy": 192,
    "sad": 192,
    "angry": 192,
    "fearful": 192,
    "disgust": 192,
    "surprised": 192,
}

MELD_UTTERANCES: Counts = {"train": 9989, "dev": 1109, "test": 2610}
MELD_DIALOGUES: Counts = {"train": 1038, "dev": 114, "test": 280}
MELD_DIALOGUES_NOTE: Mapping[str, str] = {
    "train": "the paper prints 1,039, for they are numbered 0 to 1038; of number 60 the release has no turn"
}
MELD_EMOTIONS: Table = {
    "train": {
        "neutral": 4710,
        "joy": 1743,
        "surprise": 1205,
        "anger": 1109,
        "sadness": 683,
        "disgust": 271,
        "fear": 268,
    },
    "dev": {"neutral": 470, "joy": 163, "surprise": 150, "anger": 153, "sadness": 111, "disgust": 22, "fear": 40},
    "test": {"neutral": 1256, "joy": 402, "surprise": 281, "anger": 345, "sadness": 208, "disgust": 68, "fear": 50},
}
MELD_SENTIMENTS: Table = {
    "train": {"neutral": 4710, "positive": 2334, "negative": 2945},
    "dev": {"neutral": 470, "positive": 233, "negative": 406},
    "test": {"neutral": 1256, "positive": 521, "negative": 833},
}


@dataclass(frozen=True, kw_only=True)
class PublishedCounts:
    """Published counts of one release of a corpus.

    Attributes:
        utterances: all utterances.
        speakers: all speakers; None where the number is not published.
        labels: utterances by label.
        splits: utterances by subset of the published split.
        release: name of the release, where there are several.
    """

    utterances: int
    speakers: int | None = None
    labels: Counts = field(default_factory=dict)
    splits: Counts = field(default_factory=dict)
    release: str = ""


# Corpus -> its releases.
PUBLISHED: Mapping[str, tuple[PublishedCounts, ...]] = {
    "crema-d": (
        PublishedCounts(
            utterances=7442,
            speakers=91,
            labels={"anger": 1271, "disgust": 1271, "fear": 1271, "happy": 1271, "neutral": 1087, "sad": 1271},
        ),
    ),
    "emodb": (
        PublishedCounts(
            utterances=535,
            speakers=10,
            labels={
                "anger": 127,
                "boredom": 81,
                "disgust": 46,
                "fear": 69,
                "happiness": 71,
                "neutral": 79,
                "sadness": 62,
            },
        ),
    ),
    "esd": (
        PublishedCounts(
            utterances=35_000,
            speakers=20,
            labels=dict.fromkeys(("angry", "happy", "neutral", "sad", "surprise"), 7000),
            splits={"train": 30_000, "dev": 2000, "test": 3000},
        ),
    ),
    "msp-podcast": (
        PublishedCounts(
            utterances=151_654,
            splits={"Train": 84_030, "Development": 19_815, "Test1": 30_647, "Test2": 14_815, "Test3": 2347},
            release="1.11",
        ),
        PublishedCounts(utterances=264_705, release="2.0"),
    ),
    "msp-improv": (
        PublishedCounts(
            utterances=8438, speakers=12, labels={"angry": 792, "happy": 2644, "neutral": 3477, "sad": 885}
        ),
    ),
    "savee": (
        PublishedCounts(
            utterances=480,
            speakers=4,
            labels={
                **dict.fromkeys(("anger", "disgust", "fear", "happiness", "sadness", "surprise"), 60),
                "neutral": 120,
            },
        ),
    ),
    "tess": (
        PublishedCounts(
            utterances=2800,
            speakers=2,
            labels=dict.fromkeys(("angry", "disgust", "fear", "happy", "neutral", "pleasant surprise", "sad"), 400),
        ),
    ),
    "nemo": (
        PublishedCounts(
            utterances=4481,
            speakers=9,
            labels={
                "anger": 749,
                "fear": 736,
                "happiness": 749,
                "neutral": 809,
                "sadness": 769,
                "surprised": 669,
            },
        ),
    ),
    "cmu-mosi": (PublishedCounts(utterances=2199, splits={"train": 1284, "valid": 229, "test": 686}),),
    "cmu-mosei": (PublishedCounts(utterances=22_856, splits={"train": 16_326, "valid": 1871, "test": 4659}),),
}


@dataclass(frozen=True, kw_only=True)
class Defect:
    """A known defect of one clip of a release.

    Attributes:
        what: the defect, in one clause.
        source: where it is reported.
        limit_s: maximum duration in seconds of a repaired copy; None where the duration does not show the repair.
    """

    what: str
    source: str
    limit_s: float | None = None

    def __str__(self) -> str:
        return f"known defect of the release: {self.what} ({self.source})"


# All other 13,704 clips of MELD decode, and the longest lasts 41 s. Many of them are still cut badly
# (declare-lab/MELD issue 9) or are copies of each other, which the doctor finds.
_WRONG_CUT_S = 60.0
BROKEN_CLIPS: Mapping[str, Mapping[str, Defect]] = {
    "meld": {
        "train_dia125_utt3": Defect(what="the mp4 file is corrupt", source="declare-lab/MELD issue 39"),
        "dev_dia110_utt7": Defect(what="the clip was never released", source="declare-lab/MELD issues 22 and 27"),
        "test_dia38_utt4": Defect(
            what="305 s of the episode for one line", source="declare-lab/MELD issue 20", limit_s=_WRONG_CUT_S
        ),
        "test_dia220_utt0": Defect(
            what="235 s of another scene for one line", source="declare-lab/MELD issue 20", limit_s=_WRONG_CUT_S
        ),
    },
}


def broken_clips(corpus: str) -> Mapping[str, Defect]:
    """Returns the clips of a corpus that are known to be broken, by utterance id.

    Example:
        >>> str(broken_clips("meld")["train_dia125_utt3"])
        'known defect of the release: the mp4 file is corrupt (declare-lab/MELD issue 39)'
    """
    return BROKEN_CLIPS.get(corpus, {})
