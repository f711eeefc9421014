"""Names of anybody on the terminal: nothing steers it, and no sign ends a command."""

import json
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.output import STEERING, print_table, printable


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\x1b]0;title\x07", r"a\x1b]0;title\x07"),
        ("a\rb", r"a\rb"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202eexe.wav", r"\u202eexe.wav"),
        ("\ud800", r"\ud800"),
        ("Übung\tß\n愛", "Übung\tß\n愛"),
    ],
)
def test_signs_that_steer_a_terminal_are_escaped(text: str, expected: str) -> None:
    assert printable(text) == expected


@given(st.text(st.characters()))
def test_nothing_that_steers_is_left(text: str) -> None:
    assert STEERING.search(printable(text)) is None


def test_tables_hold_no_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["id", "label"], [["a\x1b[2J", "b\rc"]])
    assert "\x1b" not in (out := capsys.readouterr().out)
    assert "\r" not in out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_without_a_sign_gets_an_escape(encoding: str) -> None:
    program = "from cli.output import echo, print_json; echo('愛 \\x1b'); print_json({'a': '愛\\x9b\\u202e'})"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=False)
    first, second = done.stdout.decode(encoding).splitlines()
    assert done.returncode == 0, done.stderr
    assert first == ("愛" if encoding == "utf-8" else r"\u611b") + r" \x1b"
    assert json.loads(second) == {"a": "愛\x9b\u202e"}
