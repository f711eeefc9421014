"""Configuration files of runs: written, read again, and refused."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import MmerError
from fusion.experiment.config_file import CONFIG, config_text, read_config, write_config

KINDS = {"fusion": (str,), "seed": (int,), "lr": (int, float), "tensorboard": (bool,), "out": (str,)}
SCALARS = (
    st.text(st.characters(exclude_categories=["Cs"]))
    | st.integers(-(2**60), 2**60)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
)


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), SCALARS, min_size=1))
def test_what_is_written_is_read_again(pairs: dict[str, object]) -> None:
    text = config_text({"fusion": "audio", "set": pairs}, command="mmer-train", path=Path("a\nb"))
    assert tomllib.loads(text) == {"command": "mmer-train", "fusion": "audio", "set": pairs}


def test_a_file_keeps_what_a_person_wrote(tmp_path: Path) -> None:
    write_config(tmp_path, {"fusion": "audio"}, command="mmer-train")
    write_config(tmp_path, {"fusion": "text"}, command="mmer-train")
    assert read_config(tmp_path / CONFIG, KINDS).values == {"fusion": "audio"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("fuson = 'audio'", "unknown option 'fuson'; did you mean fusion"),
        ("fusion = 3", "fusion must be a text, got 3"),
        ("lr = true", "lr must be a whole number or a number, got True"),
        ("seed = ['a']", "seed must be a list, each a whole number, got 'a'"),
        ("tensorboard = 'no'", "tensorboard must be true or false, got 'no'"),
        ("set = 3", r"set must be a table, as in \[set\], got 3"),
        ("[set]\nlr = [1]", r"lr of \[set\] must be a text, a number, true or false, got \[1\]"),
        ("command = 1", "command must be a text, got 1"),
        ("fusion = ", "is not a configuration in TOML"),
        ("a = " + "[" * 50_000, "is not a configuration in TOML"),
        ("x" * 1_000_001, "has 1,000,001 bytes; a configuration file has at most"),
        (b"\xff\xfe", "is not a configuration in TOML"),
    ],
)
def test_wrong_content_is_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / CONFIG
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(MmerError, match=message) as caught:
        read_config(path, KINDS, ["seed"])
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.toml"):
        with pytest.raises(MmerError, match="cannot read the configuration"):
            read_config(path, KINDS)


def test_a_run_does_not_give_its_folder_to_a_grid(tmp_path: Path) -> None:
    write_config(tmp_path, {"fusion": "audio", "out": "runs/a", "final": True}, command="mmer-train")
    assert read_config(tmp_path / CONFIG, KINDS, grid=True).values == {"fusion": "audio"}
