from pathlib import Path

from cache.utterance import Utterance
from featurize.corpora.emodb import read_emodb
from tests.support.releases import write_emodb


def test_a_name_becomes_an_utterance(tmp_path: Path) -> None:
    utterances = read_emodb(write_emodb(tmp_path)).utterances
    assert utterances[0] == Utterance(
        id="03a01Fa",
        audio="wav/03a01Fa.wav",
        text="Der Lappen liegt auf dem Eisschrank.",
        label="happiness",
        speaker="03",
        further={"gender": "male", "sentence": "a01"},
    )
    assert [(item.id, item.label, item.further["gender"]) for item in utterances[1:]] == [
        ("03a01Nc", "neutral", "male"),
        ("16b10Wb", "anger", "female"),
    ]
