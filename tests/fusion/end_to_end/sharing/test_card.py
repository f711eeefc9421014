"""Model cards: metadata that the hub reads, and texts of strangers that stay texts."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from featurize.corpora.catalog import CORPORA
from featurize.encoders.catalog import BUILT_IN, ENCODERS
from fusion.end_to_end.prediction.models import RunModels, load_models
from fusion.end_to_end.sharing.bundle import CPU, run_results
from fusion.end_to_end.sharing.card import CardFacts, model_card, plain
from fusion.end_to_end.sharing.licences import CORPUS_LANGUAGES, CORPUS_LICENCES, ENCODER_LICENCES
from fusion.run.folder import RunFolder

EVIL = (
    "happy\n---\nlicense: evil\n---\n# owned | <script>alert(1)</script> [x](https://evil.example) ![y](z) `id`"
    "\x1b[2J\u202e\ud800 www.evil.example $x$ *b* _i_ &lt; \"'\\"
)


@pytest.fixture(scope="module")
def models(concat: RunFolder) -> RunModels:
    return load_models(concat.path, device=CPU)


def facts(run: RunFolder, models: RunModels, **changes: Any) -> CardFacts:
    values = {"name": "somebody/demo", "record": run.record, "results": run_results(run), "models": models, **changes}
    return CardFacts(**values)


def test_the_metadata_are_those_of_the_hub(concat: RunFolder, models: RunModels, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(model_card(facts(concat, models, license="mit", language="de")))
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.language, card.data.library_name) == ("mit", "de", "mmer")
    assert card.data.datasets == ["voices"]
    assert card.data.model_name == "somebody/demo"
    results = card.data.eval_results
    assert results is not None
    mean = run_results(concat)["mean"]
    found = {result.metric_name: result.metric_value for result in results}
    assert found["WA (accuracy)"] == pytest.approx(mean["wa"], abs=1e-6)
    assert found["UA (unweighted average recall)"] == pytest.approx(mean["ua"], abs=1e-6)
    assert card.data.to_dict().get("model-index")


def test_scores_labels_protocol_and_encoders_are_stated(concat: RunFolder, models: RunModels) -> None:
    text = model_card(facts(concat, models))
    results = run_results(concat)
    low, high = results["interval"]["ua"]
    expected = f"| UA (unweighted average recall) | {100 * results['mean']['ua']:.2f} |"
    assert expected in text
    assert f"{100 * low:.2f} to {100 * high:.2f}" in text
    for name in ("angry, happy, sad", "wav2vec2-tiny", "roberta-tiny", "dialogue", "Intended use and limits"):
        assert name in text
    assert "trained on all utterances and has no score of its own" in text


def test_texts_of_a_stranger_stay_texts(concat: RunFolder, models: RunModels) -> None:
    record = {**concat.record, "cache": EVIL, "corpus": {"name": EVIL}, "label_set": EVIL, "notes": [EVIL]}
    identity = {**record["decides"], "labels": {EVIL: [EVIL]}, "protocol": EVIL, "only": {EVIL: [EVIL]}, "fusion": EVIL}
    results = {**run_results(concat), "recall": {EVIL: 0.5, "x": EVIL}, "interval": EVIL, "pooled": [EVIL]}
    text = model_card(facts(concat, models, name=EVIL, record={**record, "decides": identity}, results=results))
    text.encode()
    _, front, body = text.split("---\n", 2)
    data = yaml.safe_load(front)
    assert "license" not in data
    assert isinstance(data["datasets"], list)
    body = re.sub(r"```console.*?```", "", body, flags=re.S)  # links are not read in there
    steering = ("<script", "[x](", "![y]", "`id`", "\x1b", "\u202e", "https://evil", "www.evil")
    assert not [part for part in steering if part in body]
    assert "\n# owned" not in body
    assert "\n---" not in body
    for line in body.splitlines():
        assert line.count("|") in {0, 3, 5, 7}, line  # no cell of a table is added


def test_a_text_is_one_line_of_limited_length() -> None:
    assert plain("a\r\n\x00b\u2028c") == "a b c"
    assert len(plain("x" * 10_000)) == 303
    assert plain("snake_case -1.5 %") == "snake_case -1.5 %"


def test_every_encoder_and_corpus_of_a_licence_is_known() -> None:
    sources = {spec.source for spec in ENCODERS.values()} - {BUILT_IN}
    assert set(ENCODER_LICENCES) == sources
    assert {*CORPUS_LICENCES, *CORPUS_LANGUAGES} <= set(CORPORA)
