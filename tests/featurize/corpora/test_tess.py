from pathlib import Path

from featurize.corpora.tess import read_tess
from tests.support.releases import write_tess


def test_names_become_utterances_and_the_misnamed_recording_has_its_speaker(tmp_path: Path) -> None:
    utterances = read_tess(write_tess(tmp_path)).utterances
    assert [(item.id, item.label, item.speaker, item.text, item.further["age"]) for item in utterances] == [
        ("OAF_back_angry", "angry", "OAF", "Say the word back", "older"),
        ("OA_bite_neutral", "neutral", "OAF", "Say the word bite", "older"),
        ("YAF_back_ps", "pleasant surprise", "YAF", "Say the word back", "younger"),
    ]
