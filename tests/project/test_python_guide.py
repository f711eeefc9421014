"""The examples of docs/python.md run in their order and print what stands below them."""

import importlib
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"```python\n(?P<code>.*?)```(?:\n\n```text\n(?P<printed>.*?)```)?", re.S)
FILE = re.compile(r"# (?P<name>\w+\.py)\n")  # first line of an example that is a file


def examples() -> Iterator[tuple[str, str | None]]:
    for block in BLOCK.finditer(GUIDE.read_text()):
        yield block["code"], block["printed"]


def test_every_example_of_the_guide_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], demo_caches: Path
) -> None:
    shutil.copytree(demo_caches, tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, object] = {}
    for code, printed in examples():
        if file := FILE.match(code):
            module = file["name"].removesuffix(".py")
            monkeypatch.setitem(sys.modules, module, None)  # so that the end of the test takes the module out again
            del sys.modules[module]
            (tmp_path / file["name"]).write_text(code)
            continue
        exec(compile(code, str(GUIDE), "exec"), names)
        shown = capsys.readouterr().out
        assert printed is None or shown == printed


def test_the_guide_has_examples_of_every_call() -> None:
    text = "".join(code for code, _ in examples())
    assert all(
        f"mmer.{name}(" in text for name in ("featurize", "open_cache", "train", "grid", "compare", "load", "predict")
    )


def test_the_functions_of_the_other_commands_are_there() -> None:
    names = re.findall(r"`((?:fusion|cache)\.[\w.]+)`", GUIDE.read_text())
    assert len(names) >= 9
    for name in names:
        module, _, function = name.rpartition(".")
        assert callable(getattr(importlib.import_module(module), function))
