"""The head of docs/add-a-head.md, as a user writes it beside the runs."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAME = "my_head:MyHead"


def example() -> str:
    """Returns the code of the document."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "add-a-head.md").read_text(), re.S)
    assert len(blocks) == 1
    return blocks[0]


@contextmanager
def in_folder(folder: Path, **modules: str) -> Iterator[None]:
    """Stands in a folder with modules of these sources; they are forgotten in the end, as by a new process."""
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        try:
            yield
        finally:
            for name in modules:
                sys.modules.pop(name, None)
