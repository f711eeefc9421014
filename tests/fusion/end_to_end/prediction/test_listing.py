"""Recordings that arguments name, and their texts."""

import json
from pathlib import Path

import pytest

from cache.errors import MmerError
from fusion.end_to_end.prediction.listing import list_recordings, read_texts
from tests.support.voices import write_corpus


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("calls/b.wav", "calls/a.flac", "calls/deep/c.MP4", "calls/notes.txt", "d.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    return tmp_path


def files(*arguments: str, **options: object) -> list[str]:
    return [recording.file for recording in list_recordings(arguments, **options)]  # type: ignore[arg-type]


def test_files_folders_patterns_and_lists_are_named_in_their_order(calls: Path) -> None:
    assert files("d.wav", "calls") == ["d.wav", "calls/a.flac", "calls/b.wav", "calls/deep/c.MP4"]
    assert files("calls/*.wav") == ["calls/b.wav"]
    assert files("**/*.MP4") == ["calls/deep/c.MP4"]
    assert files(f"{calls}/calls/*.wav") == [f"{calls}/calls/b.wav"]
    assert files("-", lines=["d.wav\n", "\n", "gone.wav\n"]) == ["d.wav", "gone.wav"]
    assert files("calls/notes.txt", "gone.wav") == ["calls/notes.txt", "gone.wav"]


def test_a_manifest_has_spans_texts_and_the_turns_before_them(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "audio": "x.wav", "start_s": 1.5, "end_s": 2, "text": "hello", "dialogue": "d", "turn": 1},
        {"id": "b", "audio": "x.wav", "start_s": "", "end_s": "", "text": "you", "dialogue": "d", "turn": 2},
        {"id": "c", "audio": "", "text": "", "dialogue": "d", "turn": 0},
    ]
    first, second, third = list_recordings([str(write_corpus(tmp_path, rows))])
    assert (first.file, first.start_s, first.end_s, first.text) == (str(tmp_path / "x.wav"), 1.5, 2.0, "hello")
    assert first.before == ("",)
    assert second.before == ("", "hello")
    assert (third.file, third.source, third.text) == ("c", None, None)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_texts_are_found_by_path_by_name_and_without_the_ending(calls: Path, suffix: str) -> None:
    texts = [("d.wav", 'a "word", and more'), ("calls/b.wav", "two"), ("c", "three"), ("other", "x")]
    path = calls / f"texts{suffix}"
    if suffix == ".jsonl":
        lines = [json.dumps({"file": name, "text": text}) for name, text in texts]
    else:
        quoted = [(name, '"' + text.replace('"', '""') + '"') for name, text in texts]
        lines = [("\t" if suffix == ".tsv" else ",").join(row) for row in [("file", "text"), *quoted]]
    path.write_text("\n".join(lines) + "\n")
    found = list_recordings(["d.wav", "calls"], texts=path)
    assert [recording.text for recording in found] == ['a "word", and more', None, "two", "three"]


def test_one_text_is_for_one_recording(calls: Path) -> None:
    (recording,) = list_recordings(["d.wav"], text="hello")
    assert (recording.file, recording.text) == ("d.wav", "hello")
    (alone,) = list_recordings([], text="hello")
    assert (alone.source, alone.text) == (None, "hello")
    with pytest.raises(MmerError, match="--text is for one recording, and 3 are given; pass --texts FILE"):
        list_recordings(["calls"], text="hello")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("calls/*.mp3", r"no file matches calls/\*.mp3"),
        ("nothing", "nothing has no sound or video; expected .aac, .aif, .aiff"),
        ("gone.csv", "the manifest gone.csv does not exist"),
    ],
)
def test_an_argument_that_names_nothing_is_one_line(calls: Path, argument: str, message: str) -> None:
    (calls / "nothing").mkdir()
    with pytest.raises(MmerError, match=message):
        list_recordings([argument])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"file,words\nx,y\n", "expected the columns file and text, got file, words"),
        ("a.csv", b"file,text\nx\n", "line 2: 1 cells, but the header has 2 columns"),
        ("a.csv", b'file,text\nx,"y\n', "line 2: not readable as CSV: unexpected end of data"),
        ("a.csv", b"file,text\nx,y\nx,z\n", "line 3: a second text for 'x'"),
        ("a.csv", b"file,text\nx,\xff\xfe", "line 2: byte 0xFF is not UTF-8"),
        ("a.jsonl", b"{\n", "line 1: not readable as JSON"),
        ("a.jsonl", b"[1]\n", "line 1: expected one JSON object per line, got a list"),
        ("a.jsonl", b'\n{"file": "x", "text": [3]}\n', "line 2: text must be a text or a number"),
        ("a.txt", b"", "unknown ending '.txt'; known: .csv"),
    ],
)
def test_a_table_of_texts_that_is_damaged_is_one_line(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MmerError, match=message):
        read_texts(tmp_path / name)
    with pytest.raises(MmerError, match=r"cannot read the texts .*: No such file"):
        read_texts(tmp_path / "gone.csv")
