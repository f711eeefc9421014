"""The examples of the guides run: what they define is imported and used as the text says."""

import re
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
import torch

from cache.audit import summarize
from cache.store import FeatureCache
from featurize.corpora import catalog
from featurize.encoders import catalog as encoders
from featurize.encoders.base import WaveformEncoder
from featurize.encoders.options import EncodingOptions
from featurize.extraction.job import ExtractionJob
from featurize.extraction.run import run_job
from tests.support.voices import RATE_HZ, Silent, tone

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SOURCE = (ROOT / "featurize" / "encoders" / "load.py").read_text()


def python_blocks(page: str) -> list[str]:
    """Returns the Python examples of a page in their order."""
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.S)


def module_of(name: str, source: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Imports an example as the module that its page says it is."""
    module = ModuleType(name)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(source, name, "exec"), module.__dict__)
    return module


def test_the_corpus_of_the_guide_is_read_and_featurized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, tests = python_blocks("add-a-corpus.md")
    emovo = module_of("featurize.corpora.emovo", reader, monkeypatch)
    checks = module_of("test_emovo", tests, monkeypatch)
    (tmp_path / "checks").mkdir()
    (tmp_path / "empty").mkdir()
    checks.test_a_file_name_becomes_an_utterance(tmp_path / "checks")
    checks.test_an_empty_folder_is_refused_with_the_expected_tree(tmp_path / "empty")

    for index, name in enumerate(("f1/rab-f1-b1", "f1/sor-f1-b2", "m3/neu-m3-l1")):
        path = tmp_path / "emovo" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, tone(0.3 + 0.1 * index), RATE_HZ)
    row = catalog.CorpusSpec(read=emovo.read_emovo, where="", tree=emovo.TREE)
    monkeypatch.setattr(catalog, "CORPORA", {**catalog.CORPORA, "emovo": row})
    job = ExtractionJob(
        corpus="emovo",
        root=tmp_path / "emovo",
        cache=tmp_path / "emovo.h5",
        encoders=("wav2vec2-tiny",),
        options=EncodingOptions(device=torch.device("cpu")),
        mel=False,
    )
    run_job(job, Silent())
    cache = FeatureCache(tmp_path / "emovo.h5")
    assert [(utterance.speaker, utterance.label) for utterance in cache.utterances] == [
        ("f1", "anger"),
        ("f1", "surprise"),
        ("m3", "neutral"),
    ]
    assert summarize(cache)["failures"] == []


def test_the_encoder_of_the_guide_encodes_what_it_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = python_blocks("add-an-encoder.md")
    encoder: WaveformEncoder = module_of("featurize.encoders.energy", source, monkeypatch).LogEnergy(
        name="energy", dtype="float32", versions={}, limits={}
    )
    waveforms = [tone(0.3), np.zeros(100, dtype=np.float32)]
    rows = encoder.encode(waveforms)
    planned = encoder.plan([len(waveform) for waveform in waveforms])
    assert [len(values) for (values,) in rows] == [count for plan in planned for count in plan.rows]
    power = np.mean(waveforms[0][:400].astype(np.float64) ** 2)
    np.testing.assert_allclose(rows[0][0][0, 0], np.log(power + 1e-10), rtol=1e-5)
    assert rows[1][0].dtype == np.float32


def test_the_steps_of_the_guide_make_its_encoder_available_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    page = (DOCS / "add-an-encoder.md").read_text()
    module_of("featurize.encoders.energy", python_blocks("add-an-encoder.md")[0], monkeypatch)
    row = re.search(r'"energy": (_speech\(.*\)),', page)
    steps = re.search(
        r"`(from [\w.]+ import \w+)`, and three lines at the\s+start of `(\w+)`:\n\n   ```text\n(.*?)   ```", page, re.S
    )
    assert row is not None
    assert steps is not None
    line, function, added = steps.groups()
    spec = eval(row[1], vars(encoders))
    monkeypatch.setitem(encoders.ENCODERS, "energy", spec)
    head = re.compile(rf"^def {function}\(.*?:$", re.M)
    source, count = head.subn(lambda found: f"{found[0]}\n{textwrap.indent(textwrap.dedent(added), ' ' * 4)}", SOURCE)
    assert count == 1
    module = module_of("featurize.encoders.load_of_the_guide", f"{line}\n{source}", monkeypatch)
    loaded = module.load_encoders(encoders.parse_requests(["energy"]), EncodingOptions(device=torch.device("cpu")))
    (encoder,) = loaded.speech
    assert (encoder.specs[0].shape, encoder.specs[0].rate_hz) == ((spec.dim,), spec.rate_hz)
    assert len(encoder.encode([tone(0.3)])[0][0]) == encoder.plan([round(0.3 * RATE_HZ)])[0].rows[0]
