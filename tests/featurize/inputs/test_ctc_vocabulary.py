"""Tables of characters for CTC targets: what is read, what is spelt, what is refused."""

import json
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cache.errors import MmerError
from featurize.inputs.ctc_vocabulary import STANDARD, CtcVocabulary, read_ctc_vocabulary
from featurize.inputs.transcript import ctc_ids, ctc_note

GERMAN = "abcdefghijklmnopqrstuvwxyz\u00e4\u00f6\u00fc\u00df"


def written(folder: Path, text: str, name: str = "table.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def spelt(vocabulary: CtcVocabulary, words: str) -> str:
    return "".join(vocabulary.symbols[index] for index in vocabulary.ids(words))


def test_a_table_of_lines_spells_its_own_language(tmp_path: Path) -> None:
    vocabulary = read_ctc_vocabulary(written(tmp_path, "\ufeff<pad>\n|\n" + "\n".join(GERMAN)))
    assert vocabulary.symbols == ("<pad>", "|", *GERMAN)
    assert (
        spelt(vocabulary, "Gr\u00fc\u00dfe -- aus K\u00f6ln/Bonn, caf\u00e9!")
        == "gr\u00fc\u00dfe|aus|k\u00f6ln|bonn|cafe"
    )
    assert spelt(vocabulary, "Gru\u0308\u00dfe") == "gr\u00fc\u00dfe"  # written as two characters
    assert vocabulary.dropped("\u0416a7") == ["\u0416", "7"]
    assert vocabulary.note("\u0416") == "1 character such as \u0416 not in the CTC vocabulary"
    assert vocabulary.note("Gr\u00fc\u00dfe") == ""


def test_the_vocabulary_of_a_checkpoint_is_a_table(tmp_path: Path) -> None:
    table = {"<pad>": 0, "<s>": 1, "[UNK]": 2, "|": 3, "\u0431": 5, "\u0430": 4}
    vocabulary = read_ctc_vocabulary(written(tmp_path, json.dumps(table), "vocab.json"))
    assert vocabulary.symbols == ("<pad>", "|", "\u0430", "\u0431")
    assert spelt(vocabulary, "\u0411\u0430 \u0431") == "\u0431\u0430|\u0431"


@given(st.text())
def test_the_standard_vocabulary_is_that_of_wav2vec2(words: str) -> None:
    assert STANDARD.ids(words).tolist() == ctc_ids(words).tolist()
    assert STANDARD.note(words) == ctc_note(words)


@given(st.text(max_size=40))
def test_no_text_gives_an_index_outside_or_a_delimiter_at_an_end(words: str) -> None:
    vocabulary = CtcVocabulary(("<pad>", "|", *GERMAN))
    found = spelt(vocabulary, words)
    assert not found.startswith("|")
    assert not found.endswith("|")
    assert "||" not in found
    assert set(found) <= {"|", *GERMAN}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no characters; write one on each line"),
        ("|\n<pad>\n", "no characters; write one on each line"),
        ("a\nb\na", "'a' is there twice; keep one"),
        ("a\nbc", "'bc' is more than one character; write one on each line"),
        ('{"a": 0, "bc": 1}', "'bc' is more than one character; a table of characters is needed"),
        ('{"a": "b"}', "must map symbols to indices"),
        ("{", "not valid JSON"),
        ("\n".join(chr(0x4E00 + index) for index in range(300)), "300 characters; at most 253 are supported"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(MmerError, match=message) as caught:
        read_ctc_vocabulary(path)
    assert str(caught.value).startswith(f"--ctc-vocab {path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match="cannot be read"):
        read_ctc_vocabulary(tmp_path)
    (tmp_path / "latin").write_bytes(b"\xe4\n")
    with pytest.raises(MmerError, match=r"not UTF-8 \(byte 0\)"):
        read_ctc_vocabulary(tmp_path / "latin")
