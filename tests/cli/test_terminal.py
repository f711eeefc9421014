import fcntl
import io
import json
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from cli.output import print_aligned, print_table
from cli.terminal import print_aligned as print_wrapped
from cli.terminal import print_fitted
from tests.support.processes import forked
from tests.support.runs import finish, plan

STYLE = re.compile(r"\x1b\[[\d;]*m")
HEADER = ("stream", "source", "rows", "share")
ROWS = [("wav2vec2-base[9]", "facebook/wav2vec2-base :smile: [red]", "12", "3.5 MB"), ("a" * 50, "b c", "7", "-")]

# Runs commands one after another in this process, on a terminal that changes its width: the imports are paid once.
LISTINGS = """
import fcntl, itertools, struct, sys, termios
from cli.extract import featurize
from cli.train import train
for columns, (command, option) in itertools.product((80, 120), (
    (featurize, ["--list-encoders"]), (featurize, ["--list-corpora"]), (train, ["--list-heads"]),
    (train, ["--list-recipes"]), (train, ["--list-fields", "rescmfa"]),
)):
    fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    print(">", columns, *option)
    try:
        command(option)
    except SystemExit:
        pass
"""
RESULTS = """
import json
import sys
from cli.output import print_table
from fusion.run.score_table import score_header, score_table
results = json.load(sys.stdin)
print_table(score_header(results), score_table(results))
"""


def on_terminal(code: str, columns: int, *, given: str = "", **environment: str) -> str:
    """Runs Python code whose stdout is a terminal of that width, and returns what it printed there."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    printed = b""
    with forked(run_on_terminal, os.ttyname(inner), code, given, environment) as child:
        ended = False
        while not ended:
            ended = child.poll() is not None
            while select.select([outer], [], [], 0 if ended else 0.01)[0]:
                printed += os.read(outer, 65536)
        assert child.wait() == 0, child.errors.read_text()
    os.close(inner)
    os.close(outer)
    return printed.decode().replace("\r\n", "\n")


def run_on_terminal(terminal: str, code: str, given: str, environment: dict[str, str]) -> None:
    """Runs Python code with a terminal as its stdout, and some text as its stdin; to be forked."""
    for name in ("COLUMNS", "NO_COLOR"):
        os.environ.pop(name, None)
    os.environ.update({"TERM": "xterm", **environment})
    os.dup2(os.open(terminal, os.O_WRONLY | os.O_NOCTTY), 1)
    sys.stdin = io.StringIO(given)
    exec(code, {})


def words(text: str) -> list[str]:
    """The words of a text, whatever lines and styles they were printed with."""
    return STYLE.sub("", text).split()


def test_every_listing_fits_a_terminal() -> None:
    narrow, wide = STYLE.sub("", on_terminal(LISTINGS, 80)).split("> 120 --list-encoders")
    for printed, columns in ((narrow, 80), (f"> 120{wide}", 120)):
        lines = printed.splitlines()
        assert len([line for line in lines if line.startswith(f"> {columns}")]) == 5
        assert {line for line in lines if len(line) > columns} == set()
        assert any(line.startswith("gcf2net-iemocap") for line in lines)
    assert max(map(len, wide.splitlines())) > 80
    assert "differences" in narrow.split()  # a column keeps its longest word where another can be narrower


def test_the_table_of_a_run_fits_a_terminal(trainable: Path, tmp_path: Path) -> None:
    results = finish(plan(trainable, "audio", {"epochs": "1"}), tmp_path / "run")
    lines = STYLE.sub("", on_terminal(RESULTS, 40, given=json.dumps(results))).splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[0].startswith("fold")


def test_a_list_of_runs_names_the_fields_that_a_terminal_has_no_room_for(trainable: Path, tmp_path: Path) -> None:
    for seed in ("1", "2"):
        finish(plan(trainable, "audio", {"epochs": "1"}, seeds=(int(seed),)), tmp_path / seed)
    code = f"""
import dataclasses, pathlib
from cli.runs import print_list
from fusion.run.listing import list_runs
found = list_runs(pathlib.Path({str(tmp_path)!r}))
more = [{{f"field{{i}}": "x" * 20 + run.name for i in range(9)}} for run in found.runs]
runs = [dataclasses.replace(run, fields=fields) for run, fields in zip(found.runs, more)]
print_list(dataclasses.replace(found, runs=runs))
"""
    lines = STYLE.sub("", on_terminal(code, 100)).splitlines()
    shown = [word for word in lines[0].split() if word.startswith("field")]
    assert (shown, max(map(len, lines[:3])) <= 100) == (["field0", "field1"], True)
    hidden = " ".join(" ".join(lines).split())
    assert "these differ too: field2, field3, field4, field5, field6, field7, field8; --only FIELD=VALUE" in hidden


def test_columns_sets_the_width_and_no_color_the_style() -> None:
    code = "from cli.output import print_table; print_table(('name', 'text'), [('a', 'word ' * 60)])"
    assert max(map(len, STYLE.sub("", on_terminal(code, 80, COLUMNS="50")).splitlines())) <= 50
    coloured = [code for code in STYLE.findall(on_terminal(code, 80, NO_COLOR="1")) if re.search(r"[;\[][34]\d", code)]
    assert not coloured


def test_ids_and_paths_print_as_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_fitted(HEADER, ROWS)
    printed = capsys.readouterr().out
    assert "wav2vec2-base[9]" in printed
    assert "facebook/wav2vec2-base :smile: [red]" in printed
    print_wrapped([("[bold]x[/bold]", ":warning: [/]")])
    assert words(capsys.readouterr().out) == ["[bold]x[/bold]", ":warning:", "[/]"]


def test_numbers_are_set_to_the_right_and_words_to_the_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    print_fitted(("name", "rows", "size", "text"), [("a", "1,024", "1.5 MB", "x"), ("b", "7", "-", "7 y")])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == [
        "name   rows    size  text",
        "a     1,024  1.5 MB  x",
        "b         7       -  7 y",
    ]


def test_nothing_is_lost_however_narrow_a_terminal_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (16, 20, 40, 80):
        monkeypatch.setenv("COLUMNS", str(columns))
        print_fitted(HEADER, ROWS)
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= columns
        assert sorted("".join(printed.split())) == sorted("".join(sum((HEADER, *ROWS), ())).replace(" ", ""))


def test_a_piped_table_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("name", "rows"), [("a[1]", 1024), ("long name", 7)])
    print_aligned([("a", "bc", "text [x]"), ("long", "d", "more")], widths=(2, 4))
    assert capsys.readouterr().out.splitlines() == [
        "name        rows",
        "a[1]       1,024",
        "long name      7",
        "a  bc   text [x]",
        "long d    more",
    ]


def test_a_piped_table_needs_no_rich() -> None:
    code = "import sys; from cli.output import print_table; print_table(('a',), [(1,)]); print('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split() == [
        "a",
        "1",
        "False",
    ]
