"""Runs for reports: one that a head was trained for, copies of it, and one whose names and texts are hostile."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
import soundfile
from matplotlib.figure import Figure
from matplotlib.text import Text

from fusion.report import page
from tests.support.heads import CLASSES, samples
from tests.support.runs import COUNT, finish, plan, utterances, write_cache

HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"></style>{{7*7}}'
LABELS = [f"{name}<script>alert('{index}')</script></style>" for index, name in enumerate(CLASSES)]


def rewritten(run: Path, folder: Path, **record: str) -> Path:
    """Copies a run, with other values in its record."""
    shutil.copytree(run, folder)
    held = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**held, **record}))
    return folder


@contextmanager
def texts_for_pictures() -> Iterator[None]:
    """Writes the texts of the pictures of a report in their place: to draw them takes most of the time of a report."""

    def texts(figure: Figure, salt: str) -> str:
        return f"<svg><text>{salt} {escape(' '.join(text.get_text() for text in figure.findobj(Text)))}</text></svg>"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "page_svg", texts)
        yield


def train_hostile_run(folder: Path) -> Path:
    """Trains a run whose labels, transcripts and speakers are markup, and whose recordings exist."""
    names = dict(zip(CLASSES, LABELS, strict=True))
    changed = [
        replace(utterance, label=names[utterance.label], text=HOSTILE, speaker=f"{utterance.speaker}<b>x</b>")
        for utterance in utterances(samples(COUNT))
    ]
    tone = np.sin(np.arange(4800) * 0.1) * 0.3  # 0.3 s
    for utterance in changed:
        soundfile.write(folder / utterance.audio, tone, 16_000)
    cache = write_cache(folder / "hostile.h5", utterances=changed, corpus={"name": "toy", "root": str(folder)})
    finish(plan(cache, "audio", {"epochs": "1"}), folder / "run")
    return folder / "run"
