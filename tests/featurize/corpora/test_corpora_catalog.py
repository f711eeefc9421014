from dataclasses import replace
from pathlib import Path

import pytest

from cache.corpus_facts import PUBLISHED
from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora import catalog
from featurize.corpora.base import CorpusReading
from featurize.corpora.catalog import CORPORA, corpus_spec, read_corpus
from tests.support.releases import RELEASES

MANIFEST = "id,audio,text,label,speaker,session\nu1,../a.wav,,,,\n"


def test_an_unknown_corpus_is_told_the_known_ones() -> None:
    with pytest.raises(MmerError, match="unknown corpus 'iemocop'; did you mean iemocap"):
        corpus_spec("iemocop")


@pytest.mark.parametrize("name", sorted(CORPORA))
def test_a_corpus_without_a_root_says_in_one_line_where_to_get_it(name: str) -> None:
    with pytest.raises(MmerError) as caught:
        read_corpus(name, None)
    message, spec = str(caught.value), corpus_spec(name)
    assert message.startswith(f"{name} needs its {'file' if name == 'manifest' else 'folder'}: pass --root or set ")
    source = f"; get it at {spec.where}" if spec.where else ""
    assert f"set MMER_{name.upper().replace('-', '_')}_ROOT{source}; expected: {spec.tree}" in message
    assert "\n" not in message


@pytest.mark.parametrize("name", sorted(set(CORPORA) - {"demo"}))
def test_a_root_that_does_not_exist_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=rf"{name} finds no \w+ {tmp_path}/none: pass --root .*; expected"):
        read_corpus(name, tmp_path / "none")


def test_the_demo_may_be_given_a_folder_that_does_not_exist_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = CorpusReading(root=tmp_path, utterances=[Utterance(id="u1")])
    monkeypatch.setattr(
        catalog, "CORPORA", {"demo": replace(CORPORA["demo"], read=lambda root: replace(fake, root=root))}
    )
    assert read_corpus("demo", tmp_path / "new").root == tmp_path / "new"


def test_only_the_manifest_takes_recordings_from_outside(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(MANIFEST)
    with pytest.raises(MmerError, match="pass --allow-outside to accept it"):
        read_corpus("manifest", tmp_path / "table.csv")
    assert read_corpus("manifest", tmp_path / "table.csv", allow_outside=True).utterances[0].audio == "../a.wav"
    with pytest.raises(MmerError, match="--allow-outside is for the corpus manifest, not for ravdess"):
        read_corpus("ravdess", tmp_path, allow_outside=True)


def test_duplicate_ids_stop_the_reading(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(MANIFEST.replace("../a.wav", "a.wav") + "u1,b.wav,,,,\n")
    with pytest.raises(MmerError, match=r"duplicate id u1 in manifest \(a\.wav, b\.wav"):
        read_corpus("manifest", tmp_path / "table.csv")


def test_a_corpus_is_read_by_its_own_reader(iemocap_root: Path) -> None:
    reading = read_corpus("iemocap", iemocap_root)
    assert reading.utterances[0].id == "Ses01F_impro01_F000"


@pytest.mark.parametrize("name", RELEASES)
def test_a_release_in_small_is_read_with_unique_ids_and_existing_recordings(name: str, tmp_path: Path) -> None:
    write, count = RELEASES[name]
    reading = read_corpus(name, write(tmp_path))
    assert len(reading.utterances) == count
    assert all((reading.root / utterance.audio).is_file() for utterance in reading.utterances)
    assert {utterance.label for utterance in reading.utterances} - {"", "no agreement"} <= {
        label
        for counts in PUBLISHED[name]
        for label in counts.labels or {utterance.label for utterance in reading.utterances}
    }
