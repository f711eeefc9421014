from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.corpora.catalog import read_corpus
from featurize.corpora.columns import parse_columns, rename_columns

TABLE = "name,file,emotion,gender,age\nu1,a.wav,sad,f,30.0\nu2,b.wav,glad,m,\n"
OPTIONS = ("id=name", "audio=file", "label=emotion")


def read(path: Path, *pairs: str, kept: tuple[str, ...] = ()) -> CorpusReading:
    return read_corpus("manifest", path, columns=parse_columns(pairs, kept))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "table.csv").write_text(TABLE)
    return tmp_path / "table.csv"


def test_columns_are_read_under_other_names_and_kept(table: Path) -> None:
    reading = read(table, *OPTIONS, kept=("gender", "age"))
    assert reading.utterances == [
        Utterance(id="u1", audio="a.wav", label="sad", further={"gender": "f", "age": "30.0"}),
        Utterance(id="u2", audio="b.wav", label="glad", further={"gender": "m"}),
    ]
    assert reading.notes == []


def test_a_named_column_takes_the_place_of_the_column_of_that_name(table: Path) -> None:
    table.write_text("id,text,label,emotion\nu1,hello,7,sad\n")
    assert read(table, "label=emotion").utterances[0].label == "sad"
    both = read(table, "label=emotion", kept=("emotion",)).utterances[0]
    assert (both.label, both.further) == ("sad", {"emotion": "sad"})


def test_json_lines_are_read_under_other_names_too(tmp_path: Path) -> None:
    table = tmp_path / "table.jsonl"
    table.write_text('{"id": "u1", "sentence": "hello", "age": 30.0}\n{"id": "u2", "sentence": "you"}\n')
    reading = read(table, "text=sentence", kept=("age",))
    assert [(item.text, dict(item.further)) for item in reading.utterances] == [("hello", {"age": "30"}), ("you", {})]


@pytest.mark.parametrize(
    ("pairs", "kept", "message"),
    [
        (("emotion",), (), "--column expects NAME=COLUMN, as in --column label=emotion, got 'emotion'"),
        (("labl=emotion",), (), "--column labl=emotion: unknown column 'labl'; known: id, audio"),
        (("label=a", "label=b"), (), "--column label=b: label is read from a already; give it once"),
        ((), ("speaker",), "--keep-column speaker: the column speaker is read anyway; leave the option out"),
        (
            ("label=mood",),
            (),
            r"--column label=mood: .*table.csv has no column 'mood'; its columns: name, file, emotion",
        ),
        (OPTIONS, ("accent",), r"--keep-column accent: .*table.csv has no column 'accent'; its columns: name"),
    ],
)
def test_mistakes_are_one_line(table: Path, pairs: tuple[str, ...], kept: tuple[str, ...], message: str) -> None:
    with pytest.raises(MmerError, match=message):
        read(table, *pairs, kept=kept)


def test_own_columns_of_a_corpus_are_read_under_other_names() -> None:
    utterances = [Utterance(id="u1", label="sad", sentiment="negative", further={"vote": "anger"})]
    reading = CorpusReading(root=Path(), utterances=utterances)
    assert rename_columns(reading, parse_columns(["label=vote"]), "c").utterances[0].label == "anger"
    assert rename_columns(reading, parse_columns(["label=sentiment"]), "c").utterances[0].label == "negative"
    for pairs, kept, message in (
        (["label=mood"], [], "the corpus c has no column 'mood'; its columns: vote, text, label"),
        (["turn=vote"], [], r"--column turn=... is for tables; of c, choose text, label"),
        ([], ["vote"], r"--keep-column is for tables; all own columns of c are kept \(vote\)"),
    ):
        with pytest.raises(MmerError, match=message):
            rename_columns(reading, parse_columns(pairs, kept), "c")
