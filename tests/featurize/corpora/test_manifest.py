import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.manifest import COLUMNS, USUAL, read_manifest
from featurize.corpora.table import ABSENT

HEADER = ",".join(USUAL)

# Surrogates cannot be written as UTF-8; the bytes behind them have a test of their own.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).filter(
    lambda text: text not in ABSENT
)
names = texts.map(str.strip)
ratings = st.none() | st.floats(-10, 10)
utterances = st.builds(
    Utterance,
    id=texts.filter(str.strip),
    audio=st.sampled_from(["", "a.wav", "deep/folder/b c.flac", 'näme,"x".wav']),
    start_s=st.none() | st.floats(0, 100),
    end_s=st.none() | st.floats(100.125, 200),
    duration_s=st.none(),
    turn=st.none() | st.integers(0, 10_000),
    text=texts,
    **dict.fromkeys(("label", "speaker", "session", "dialogue", "split", "style", "channel"), names),
    **dict.fromkeys(("valence", "activation", "dominance"), ratings),
)
tables = st.lists(utterances, min_size=1, max_size=4)


def written(folder: Path, content: str | bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def json_row(**changes: object) -> str:
    return json.dumps(dict.fromkeys(USUAL) | {"id": "u1"} | changes)


def csv_of(*rows: str, header: str = HEADER) -> str:
    return "\n".join([header, *rows]) + "\n"


@settings(max_examples=30)
@given(
    tables,
    st.permutations(COLUMNS),
    st.sampled_from([("table.csv", ","), ("table.TSV", "\t")]),
    st.sampled_from(["utf-8", "utf-8-sig"]),
)
def test_a_table_written_by_csv_writer_reads_back_equal(
    items: list[Utterance], columns: list[str], kind: tuple[str, str], encoding: str
) -> None:
    name, delimiter = kind
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows([[asdict(item)[name] for name in columns] for item in items])
    with TemporaryDirectory() as folder:
        reading = read_manifest(written(Path(folder), buffer.getvalue().encode(encoding), name))
    assert (reading.utterances, reading.notes) == (items, [])


@settings(max_examples=30)
@given(tables)
def test_json_lines_read_back_equal(items: list[Utterance]) -> None:
    lines = [json.dumps({name: asdict(item)[name] for name in COLUMNS}, ensure_ascii=False) for item in items]
    with TemporaryDirectory() as folder:
        path = written(Path(folder), "\r\n\n".join(lines), "table.jsonl")
        assert read_manifest(path).utterances == items


def test_null_and_numbers_in_json_become_texts(tmp_path: Path) -> None:
    path = written(tmp_path, json_row(id=17, label=3, speaker=None, turn=2, start_s="0.5"), "table.ndjson")
    assert read_manifest(path).utterances == [Utterance(id="17", label="3", turn=2, start_s=0.5)]


def test_the_root_is_the_folder_of_the_manifest(tmp_path: Path) -> None:
    path = written(tmp_path, csv_of("u1,wav/a.wav,hi,happy,s1,1"))
    assert read_manifest(path).root == tmp_path


def test_unknown_columns_are_named_in_one_note(tmp_path: Path) -> None:
    path = written(tmp_path, csv_of("1,u1,,,,,,F", header=f"row,{HEADER},gender"))
    assert read_manifest(path).notes == ["unknown columns are ignored: row, gender"]


def test_unknown_keys_of_all_json_lines_are_named_once(tmp_path: Path) -> None:
    path = written(
        tmp_path, "\n".join([json_row(), json_row(id="u2", age=1), json_row(id="u3", age=2, sex="f")]), "t.jsonl"
    )
    assert read_manifest(path).notes == ["unknown columns are ignored: age, sex"]


def test_nuls_and_blank_lines_are_tolerated(tmp_path: Path) -> None:
    path = written(tmp_path, HEADER.encode() + b"\r\n\r\nu1,a.wav,caf\xc3\xa9 \x00,sad,s1,1\r\n  \r\n")
    (utterance,) = read_manifest(path).utterances
    assert utterance.text == "caf\xe9 \0"


def test_spaces_around_column_names_and_whole_floats_are_tolerated(tmp_path: Path) -> None:
    path = written(tmp_path, csv_of("u1,,,,,,3.0", header="id, audio, text, label, speaker, session, turn"))
    assert read_manifest(path).utterances == [Utterance(id="u1", turn=3)]


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    path = written(tmp_path, csv_of("u1,x", header="id,speaker"))
    message = r"missing columns audio or text \(one of the two\); found id, speaker; add them; their cells may be empty"
    with pytest.raises(MmerError, match=message):
        read_manifest(path)


def test_a_missing_key_is_named_with_the_json_line(tmp_path: Path) -> None:
    path = written(tmp_path, json_row() + "\n\n{}\n", "table.json")
    with pytest.raises(MmerError, match=r"line 3: missing columns id, audio or text .*; found none; .*null"):
        read_manifest(path)


def test_a_column_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, csv_of("u1,,,,,,", header=f"{HEADER},label"))
    with pytest.raises(MmerError, match="line 1: the column label occurs more than once"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("column", "cell", "problem"),
    [
        ("start_s", "abc", "start_s must be a finite number or empty, got 'abc'"),
        ("end_s", "inf", "end_s must be a finite number"),
        ("start_s", "-1", "start_s of u2 must not be negative"),
        ("end_s", "0", "end_s of u2 must lie after start_s"),
        ("turn", "1.5", "turn must be a whole number of at least 0 or empty, got '1.5'"),
        ("turn", "-1", "turn must be a whole number"),
        ("turn", "1e300", "turn must be a whole number"),
    ],
)
def test_a_bad_number_is_refused_with_its_line(tmp_path: Path, column: str, cell: str, problem: str) -> None:
    path = written(tmp_path, csv_of('u1,,"two\nlines",,,,', f"u2,,,,,,{cell}", header=f"{HEADER},{column}"))
    with pytest.raises(MmerError, match=f"table.csv: line 4: {problem}"):
        read_manifest(path)


def test_an_end_before_the_start_is_refused_in_one_line(tmp_path: Path) -> None:
    path = written(tmp_path, csv_of('"u\n1",,,,,,3,2', header=f"{HEADER},start_s,end_s"))
    with pytest.raises(MmerError, match=r"line 2: end_s of u 1 must lie after start_s 3\.0, got 2\.0$"):
        read_manifest(path)


@pytest.mark.parametrize("cell", ["", "  "])
def test_an_empty_id_is_refused(tmp_path: Path, cell: str) -> None:
    path = written(tmp_path, csv_of("u1,,,,,", f"{cell},a.wav,,,,"))
    with pytest.raises(MmerError, match="line 3: the id is empty"):
        read_manifest(path)


@pytest.mark.parametrize("row", ["u2,a.wav,hello, you,sad,s1,1", "u2,a.wav"])
def test_a_row_of_another_width_is_refused(tmp_path: Path, row: str) -> None:
    path = written(tmp_path, csv_of("u1,,,,,", row))
    with pytest.raises(MmerError, match=rf"line 3: {row.count(',') + 1} cells, but the header has 6 columns"):
        read_manifest(path)


def test_an_open_quote_does_not_swallow_the_rest_of_the_table(tmp_path: Path) -> None:
    path = written(tmp_path, csv_of("u1,,,,,", 'u2,,"hi,,,', "u3,,,,,"))
    with pytest.raises(MmerError, match="line 3: not readable as CSV"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "u2"', "not readable as JSON: Expecting ',' delimiter$"),
        ("[" * 100_000, "not readable as JSON"),
        ('["u2"]', "expected one JSON object per line, got a list"),
        (json_row(text=["a"]), "text must be a text or a number, got"),
        (json_row(label=True), "label must be a text or a number, got true"),
        (json_row(valence=float("inf")), "valence must be a text or a finite number, got inf"),
        (json_row(speaker="a\0"), r"speaker holds the character '\\x00', which cannot be stored"),
        ('{"id": "a", "id": "b"}', "the column id occurs more than once"),
    ],
)
def test_a_bad_json_line_is_refused_with_its_number(tmp_path: Path, line: str, problem: str) -> None:
    path = written(tmp_path, f"{json_row()}\n{line}\n", "table.jsonl")
    with pytest.raises(MmerError, match=f"line 2: {problem}"):
        read_manifest(path)


@pytest.mark.parametrize("audio", ["../x.wav", "wav/../../x.wav", "/elsewhere/x.wav", ".."])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, audio: str) -> None:
    path = written(tmp_path, csv_of(f"u1,{audio},,,,"))
    with pytest.raises(MmerError, match=f"line 2: audio '{audio}' lies outside .*--allow-outside"):
        read_manifest(path)


def test_a_sibling_folder_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    (tmp_path / "voices").mkdir()
    path = written(tmp_path / "voices", csv_of("u1,../voices2/x.wav,,,,"))
    with pytest.raises(MmerError, match="outside"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("audio", "kept"),
    [("../x.wav", "../x.wav"), ("wav/../../x.wav", "../x.wav"), ("/elsewhere/x.wav", "/elsewhere/x.wav")],
)
def test_a_path_outside_is_kept_when_allowed(tmp_path: Path, audio: str, kept: str) -> None:
    path = written(tmp_path, csv_of(f"u1,{audio},,,,"))
    assert read_manifest(path, allow_outside=True).utterances[0].audio == kept


@pytest.mark.parametrize("audio", ["./wav/a.wav", "wav/x/../a.wav", "wav//a.wav", "{folder}/wav/a.wav"])
def test_a_path_inside_is_stored_relative_and_short(tmp_path: Path, audio: str) -> None:
    path = written(tmp_path, csv_of(f"u1,{audio.format(folder=tmp_path)},,,,"))
    assert read_manifest(path).utterances[0].audio == "wav/a.wav"


def test_a_relative_manifest_path_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, csv_of("u1,wav/a.wav,,,,"))
    monkeypatch.chdir(tmp_path)
    assert read_manifest(Path("table.csv")).utterances[0].audio == "wav/a.wav"
    assert read_manifest(Path("..", tmp_path.name, "table.csv")).utterances[0].audio == "wav/a.wav"


def test_links_count_as_the_place_where_they_lie(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "wav").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "corpus")
    written(tmp_path / "corpus", csv_of("u1,wav/a.wav,,,,", f"u2,{tmp_path}/link/wav/a.wav,,,,"))
    assert [item.audio for item in read_manifest(tmp_path / "link" / "table.csv").utterances] == ["wav/a.wav"] * 2


@pytest.mark.parametrize(("name", "content"), [("t.csv", ""), ("t.csv", f"{HEADER}\n"), ("t.jsonl", "\n\n")])
def test_a_manifest_without_an_utterance_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(MmerError, match="no utterance found; expected the columns id, audio or text"):
        read_manifest(written(tmp_path, content, name))


def test_a_missing_file_a_folder_and_a_strange_ending_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"none\.csv does not exist"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(MmerError, match=r"is a folder; expected a file \(\.csv"):
        read_manifest(tmp_path)
    with pytest.raises(MmerError, match=r"unknown ending '\.xlsx'; known: \.csv"):
        read_manifest(written(tmp_path, csv_of("u1,,,,,"), "table.xlsx"))


def test_votes_are_read_and_those_that_do_not_sum_are_refused_with_their_line(tmp_path: Path) -> None:
    header = "id,text,votes\n"
    (found,) = read_manifest(written(tmp_path, f'{header}a,hello,"happy:3,sad:1"\n')).utterances
    assert found.votes == "happy:3,sad:1"
    with pytest.raises(
        MmerError, match=r"line 2: votes of a sum to 0\.7 .*; expected whole numbers, or shares that sum"
    ):
        read_manifest(written(tmp_path, f'{header}a,hello,"happy:0.5,sad:0.2"\n'))


def test_a_table_of_labels_alone_is_a_corpus_for_imported_features(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("id,label,speaker,fold\nA/1,sad,s1,1\nA/2,glad,s2,2\n")
    reading = read_manifest(path)
    assert [(held.id, held.label, held.audio, held.text) for held in reading.utterances] == [
        ("A/1", "sad", "", ""),
        ("A/2", "glad", "", ""),
    ]
    assert reading.notes == ["the column fold is for training: mmer-train --folds with this table"]
    path.write_text("id,label,wav\na,sad,a.wav\n")
    with pytest.raises(MmerError, match="rename wav to audio"):
        read_manifest(path)
