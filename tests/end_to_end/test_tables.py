"""Tables of users, from the cell to the command's last line: labels, encodings, corrections."""

import json
import re
from pathlib import Path

import pytest
import soundfile
from click.testing import CliRunner

from cache.doctor import examine
from cache.store import FeatureCache
from cli.extract import featurize
from fusion.protocols.labels import alike_notes, choose_labels
from tests.support.commands import stopped
from tests.support.voices import RATE_HZ, tone

TINY = ["--encoder", "roberta-tiny", "--no-mel"]
ALIKE = "labels 'happy', 'Happy' differ only in case or white space"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    soundfile.write(tmp_path / "a.wav", tone(0.2), RATE_HZ)
    return tmp_path / "t.csv"


def run(table: Path, *options: str) -> dict[str, list[str]]:
    arguments = ["manifest", "--root", str(table), "--cache", str(table.with_suffix(".h5")), *TINY, *options, "--json"]
    result = CliRunner().invoke(featurize, arguments)
    assert result.exit_code == 0, result.output
    report: dict[str, list[str]] = json.loads(result.stdout)
    return report


def test_labels_that_differ_in_case_are_named_by_featurize_doctor_and_train(table: Path) -> None:
    rows = [f"u{n},hi {n},{label}" for n, label in enumerate(["happy", "Happy", "happy ", "sad"])]
    table.write_text("\n".join(["id,text,label", *rows]) + "\n")
    assert any(ALIKE in note for note in run(table)["notes"])
    cache = FeatureCache(table.with_suffix(".h5"))
    assert any(ALIKE in finding.detail for finding in examine(cache))
    labels = choose_labels(None, "manifest", cache.utterances)
    assert [note.startswith(ALIKE) for note in alike_notes(cache.utterances, labels)] == [True]
    merged = choose_labels("happy=happy+Happy,sad=sad", "manifest", cache.utterances)
    assert alike_notes(cache.utterances, merged) == []


def test_a_corrected_label_changes_the_cache_and_says_so(table: Path) -> None:
    table.write_text("id,text,label,speaker\na,hi,Happy,s\nb,no,sad,s\n")
    run(table)
    table.write_text("id,text,label,speaker\na,hi,happy,s\nb,no,sad,t\n")
    notes = run(table)["notes"]
    assert "label of 1 utterances has changed (first: a: 'Happy' -> 'happy')" in notes
    assert "speaker of 1 utterances has changed (first: b: 's' -> 't')" in notes
    assert [utterance.label for utterance in FeatureCache(table.with_suffix(".h5")).utterances] == ["happy", "sad"]
    assert not any("has changed" in note for note in run(table)["notes"])


def test_a_text_in_another_encoding_is_never_half_destroyed(table: Path) -> None:
    table.write_bytes("id,audio,text,label\na,a.wav,déjà vu — ça,x\n".encode("cp1252"))
    arguments = ["manifest", "--root", str(table), "--cache", str(table.with_suffix(".h5")), *TINY]
    line = stopped(CliRunner().invoke(featurize, arguments))
    assert "line 2: byte 0xE9 is not UTF-8" in line
    assert line.count("--encoding cp1252") == 1
    assert not table.with_suffix(".h5").exists()
    run(table, "--encoding", "cp1252")
    assert FeatureCache(table.with_suffix(".h5")).utterances[0].text == "déjà vu — ça"


@pytest.mark.parametrize(
    ("corpus", "encoding", "problem"),
    [
        ("manifest", "klingon", "unknown encoding 'klingon'"),
        ("ravdess", "cp1252", "--encoding is for manifest and iemocap"),
    ],
)
def test_an_encoding_that_cannot_apply_is_one_line(table: Path, corpus: str, encoding: str, problem: str) -> None:
    table.write_text("id,text\na,hi\n")
    arguments = [corpus, "--root", str(table), "--cache", str(table.with_suffix(".h5")), "--encoding", encoding, *TINY]
    assert problem in stopped(CliRunner().invoke(featurize, arguments))


def test_words_that_an_earlier_version_joined_are_spelt_anew_and_all_others_stay(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table.write_text("id,text\na,no--wait\nb,well-known\n")
    with monkeypatch.context() as earlier:
        earlier.setattr("featurize.inputs.transcript.PARTING", re.compile("(?!)"))
        run(table)
    before = FeatureCache(table.with_suffix(".h5")).stream("ctc.chars")
    notes = run(table)["notes"]
    after = FeatureCache(table.with_suffix(".h5")).stream("ctc.chars")
    assert "ctc.chars: 1 utterances have changed since they were encoded (first: a)" in notes
    assert [len(before.read(index)) for index in (0, 1)] == [6, 9]
    assert [len(after.read(index)) for index in (0, 1)] == [7, 9]
    assert before.key == after.key
