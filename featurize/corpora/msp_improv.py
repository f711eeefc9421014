"""MSP-IMPROV: twelve actors in six dyadic sessions, 8,438 turns with emotions and rated dimensions.

Source: Busso et al., 2017, doi:10.1109/TAFFC.2016.2515617. Licence by form; nothing is downloaded here.
Expects: Evaluation.txt (or Evalution.txt, as some copies call it) in ROOT or below, with lines such as
``UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:3.0; V:3.2; D:2.8 ; N:3.4;``, and next to it
session1/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.wav and so on.
Labels: the letter of the consensus in words; X as ``no agreement``. Ratings: A activation, V valence, D dominance,
1 to 5; an absent one is NaN. Session and speaker: the actor F01 of the name is of session 1. Dialogue: the scenario
of the session.
Own columns: sentence (01 to 20), acted (the emotion that the scenario aims at), part (P, R, S or T, the kind of
recording as the release abbreviates it), naturalness. The release has no transcripts for each turn. The turns of a
dialogue have no published order.

The layout and the parts of a name were read from published processing scripts, not from the release itself.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading, with_texts
from featurize.corpora.table import decoded, line_error, nearest_file

TREE = "ROOT/Evaluation.txt and ROOT/session{1..6}/S01A/{P,R,S,T}/MSP-IMPROV-S01A-F01-P-FM01.wav"
TABLES = ("Evaluation.txt", "Evalution.txt")
EMOTIONS: Mapping[str, str] = {
    "A": "angry",
    "H": "happy",
    "S": "sad",
    "N": "neutral",
    "O": "other",
    "X": "no agreement",
}
_RATING = r"\d+(?:\.\d+)?|NaN"
_LINE = re.compile(
    r"UTD-IMPROV-(?P<name>S(?P<sentence>\d\d)(?P<acted>[A-Z])-(?P<actor>[FM]0(?P<session>\d))-(?P<part>[A-Z])-\w+)\.avi"
    rf"\s*;\s*(?P<label>[A-Z])\s*;\s*A:(?P<activation>{_RATING})\s*;\s*V:(?P<valence>{_RATING})\s*;"
    rf"\s*D:(?P<dominance>{_RATING})\s*;\s*N:(?P<naturalness>{_RATING})\s*;?"
)


def read_msp_improv(root: Path) -> CorpusReading:
    """Reads the consensus labels; recordings are not opened.

    Raises:
        MmerError: if there is no table of labels, or a line on a turn has another form.
    """
    table = nearest_file(root, *TABLES)
    if table is None:
        raise MmerError(f"no Evaluation.txt of msp-improv found in {root}; expected: {TREE}")
    utterances = []
    for number, line in enumerate(decoded(table).splitlines(), start=1):
        if line.startswith("UTD-IMPROV-"):  # the lines between are those of the raters
            match = _LINE.fullmatch(line.strip())
            if match is None or match["label"] not in EMOTIONS:
                raise line_error(table, number, f"expected a turn as in the release, got {line.strip()[:80]!r}")
            utterances.append(_utterance(match))
    if not utterances:
        raise MmerError(f"{table} has no line that begins with UTD-IMPROV-; use the file of the release")
    return CorpusReading(root=table.parent, utterances=utterances)


def _utterance(match: re.Match[str]) -> Utterance:
    scenario, session, actor = f"S{match['sentence']}{match['acted']}", match["session"], match["actor"]
    utterance = Utterance(
        id=f"MSP-IMPROV-{match['name']}",
        audio=f"session{session}/{scenario}/{match['part']}/MSP-IMPROV-{match['name']}.wav",
        label=EMOTIONS[match["label"]],
        speaker=actor,
        session=session,
        dialogue=f"session{session}_{scenario}",
        valence=_rating(match["valence"]),
        activation=_rating(match["activation"]),
        dominance=_rating(match["dominance"]),
    )
    naturalness = "" if match["naturalness"] == "NaN" else match["naturalness"]
    acted = EMOTIONS.get(match["acted"], match["acted"])
    further = {"sentence": match["sentence"], "acted": acted, "part": match["part"], "naturalness": naturalness}
    return with_texts(utterance, further)


def _rating(text: str) -> float | None:
    return None if text == "NaN" else float(text)
