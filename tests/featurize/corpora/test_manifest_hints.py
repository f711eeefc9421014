"""Common changes that spreadsheets make to a table, and the hint in the error."""

from pathlib import Path

import pytest

from cache.errors import MmerError
from featurize.corpora.manifest import read_manifest

HEADER = "id,audio,text,label,speaker,session"


@pytest.mark.parametrize(
    ("content", "hint"),
    [
        (HEADER.replace(",", "|").encode(), "separate columns by commas, semicolons or tabs"),
        (HEADER.upper().encode(), "rename ID to id, AUDIO to audio"),
        (b"name;file;emotion\n", "rename name to id, file to audio"),
        (b"id,path,emotion\n", "missing columns audio or text .*; rename path to audio"),
        (b"id,transcript,emotion\n", "rename transcript to text"),
        (HEADER.encode("utf-16-le"), "seems to be in UTF-16 without a byte order mark; pass --encoding utf-16-le"),
        (HEADER.encode("utf-16-be"), "pass --encoding utf-16-be"),
        (HEADER.encode("utf-16") + b"x", "line 1: byte 0x78 is not utf-16, which the byte order mark says"),
        (
            f"{HEADER}\nu1,a.wav,hi,fröhlich,s,1\n".encode("latin-1"),
            r"line 2: byte 0xF6 is not UTF-8; save .* --encoding cp1252 \(which reads 'fröhlich' here\)",
        ),
    ],
)
def test_a_table_saved_otherwise_is_refused_with_a_way_out(tmp_path: Path, content: bytes, hint: str) -> None:
    (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(MmerError, match=hint):
        read_manifest(tmp_path / "table.csv")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["table.csv", "table.tsv"])
def test_unicode_and_the_delimiters_of_spreadsheets_are_found(
    tmp_path: Path, encoding: str, delimiter: str, name: str
) -> None:
    text = f"{HEADER}\nu1,a.wav,déjà vu,fröhlich,s,1\n".replace(",", delimiter)
    (tmp_path / name).write_bytes(text.encode(encoding))
    (utterance,) = read_manifest(tmp_path / name).utterances
    assert (utterance.text, utterance.label, utterance.session) == ("déjà vu", "fröhlich", "1")


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "mac-roman", "utf-16-le"])
def test_another_encoding_is_read_if_it_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "table.csv").write_bytes(f"{HEADER}\nu1,a.wav,déjà vu,x,s,1\n".encode(encoding))
    assert read_manifest(tmp_path / "table.csv", encoding=encoding).utterances[0].text == "déjà vu"


@pytest.mark.parametrize(
    ("encoding", "problem"),
    [
        ("ascii", "line 2: byte 0xE9 is not ascii; pass another --encoding"),
        ("klingon", "unknown encoding 'klingon'; expected a name such as utf-8"),
        ("hex", "unknown encoding 'hex'"),
        ("a\0b", "unknown encoding"),
    ],
)
def test_a_wrong_encoding_is_one_line(tmp_path: Path, encoding: str, problem: str) -> None:
    (tmp_path / "table.csv").write_bytes(f"{HEADER}\nu1,a.wav,déjà vu,x,s,1\n".encode("cp1252"))
    with pytest.raises(MmerError, match=problem):
        read_manifest(tmp_path / "table.csv", encoding=encoding)


def test_a_decimal_comma_is_read_where_semicolons_separate(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("id;audio;start_s\nu1;a.wav;0,5\n")
    assert read_manifest(tmp_path / "table.csv").utterances[0].start_s == 0.5


def test_absent_values_of_json_and_pandas_are_never_the_word(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"id": "a", "text": NaN, "label": NaN, "speaker": null, "session": 1.0, "valence": NaN, "audio": "a.wav"}\n'
        '{"id": "b", "text": "nan", "label": "NaN", "speaker": "<NA>", "session": "1", "turn": "nan"}\n'
        '{"id": "c", "text": "Nan is here", "label": 1.0, "speaker": "2.0", "session": 1}\n'
    )
    reading = read_manifest(tmp_path / "t.jsonl")
    first, second, third = reading.utterances
    assert (first.text, first.label, first.speaker, first.valence) == ("", "", "", None)
    assert (second.text, second.label, second.speaker, second.turn) == ("", "", "", None)
    assert (third.text, third.label, third.speaker) == ("Nan is here", "1", "2")
    assert {utterance.session for utterance in reading.utterances} == {"1"}
    assert reading.notes == [
        "cells with the word nan are read as empty: 1 of text, 1 of label, 1 of speaker, 1 of turn"
    ]


def test_white_space_around_a_name_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "id,text,label,speaker,session,split,dialogue\nu1, hi , happy , s ,1.0\u00a0, dev , d\n"
    )
    (utterance,) = read_manifest(tmp_path / "t.csv").utterances
    assert (utterance.label, utterance.speaker, utterance.session) == ("happy", "s", "1")
    assert (utterance.split, utterance.dialogue, utterance.text) == ("dev", "d", " hi ")


@pytest.mark.parametrize("table", ["id,text\nu1,hi\n", "id,audio\nu1,a.wav\n"])
def test_an_id_and_a_recording_or_a_text_are_enough(tmp_path: Path, table: str) -> None:
    (tmp_path / "t.csv").write_text(table)
    assert len(read_manifest(tmp_path / "t.csv").utterances) == 1


def test_a_row_of_json_may_lack_what_another_row_has(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"id": "a"}\n{"id": "b", "text": "hi"}\n')
    assert [utterance.text for utterance in read_manifest(tmp_path / "t.jsonl").utterances] == ["", "hi"]


@pytest.mark.parametrize(
    ("unknown", "meant"),
    [
        ("emotion", "label"),
        ("speaker id", "speaker"),
        ("arousal", "activation"),
        ("Split", "split"),
    ],
)
def test_an_unknown_column_is_named_with_the_one_that_it_probably_is(tmp_path: Path, unknown: str, meant: str) -> None:
    (tmp_path / "t.csv").write_text(f"id,audio,{unknown}\nu1,a.wav,x\n")
    assert read_manifest(tmp_path / "t.csv").notes == [
        f"unknown columns are ignored: {unknown} (meant {unknown} for {meant}?)"
    ]


def test_a_column_of_nearly_a_known_name_is_pointed_out(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text(f"{HEADER},start,gender\nu1,a.wav,hi,x,s,1,0.5,f\n")
    assert read_manifest(tmp_path / "table.csv").notes == [
        "unknown columns are ignored: start, gender (meant start for start_s?)"
    ]
