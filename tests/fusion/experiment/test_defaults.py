from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.experiment.defaults import AUTO, HANDMADE, automatic
from fusion.experiment.fields import list_fields
from fusion.experiment.request import ExperimentRequest
from fusion.heads.catalog import HEADS
from fusion.recipes.catalog import RECIPES
from fusion.training.config import TrainConfig
from tests.support.runs import write_cache

WEIGHTS = {"weights": "0" * 32}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("defaults") / "a.h5"
    history = {**WEIGHTS, "preprocessing": {"history": 10}}
    return write_cache(path, specs={"audio": WEIGHTS, "text": history})


def settings(cache: Path, fusion: str, axes: dict[str, object] | None = None, **options: object) -> dict[str, object]:
    """The fields of the head and of the training of a run that is planned for a cache."""
    request = ExperimentRequest(fusion=fusion, **options)  # type: ignore[arg-type]
    experiment = request.experiment(open_cache(cache), axes or {})
    return {**vars(experiment.training), **vars(experiment.head)}


def test_defaults_depend_on_the_stream_that_a_head_reads(encoded: Path) -> None:
    handmade = settings(encoded, "audio", streams={"audio": "logmel80"})
    of_encoder = settings(encoded, "audio", streams={"audio": "voice"})
    for name, value in HANDMADE.of("audio").items():
        assert handmade[name] == value
    assert (of_encoder["adapter"], of_encoder["dim"], of_encoder["pooling"]) == (False, 0, "meanstd")
    by_axis = settings(encoded, "audio", {"stream.audio": "logmel80"})
    assert by_axis == handmade


def test_a_field_that_is_set_and_a_recipe_keep_their_values(encoded: Path) -> None:
    chosen = settings(encoded, "audio", fields={"lr": 0.5, "pooling": "max"}, streams={"audio": "logmel80"})
    assert (chosen["lr"], chosen["pooling"], chosen["standardize"]) == (0.5, "max", True)
    free = settings(encoded, "audio", fields={"lr": AUTO, "pooling": "max"}, streams={"audio": "logmel80"})
    assert (free["lr"], free["pooling"]) == (HANDMADE.of("audio")["lr"], "max")
    normalized = settings(encoded, "audio", fields={"normalize": True, "focal_gamma": 2.0})
    assert (normalized["standardize"], normalized["label_smoothing"]) == (False, 0.0)
    letter = RECIPES["superb-iemocap"]
    streams = {"audio": "logmel80"}
    labels = "angry=angry,happy=happy,sad=sad,calm=calm"
    by_recipe = settings(encoded, "", recipe=letter.name, streams=streams, labels=labels)
    assert {name: by_recipe[name] for name in letter.fields} == letter.fields
    assert by_recipe["epochs"] == TrainConfig().epochs
    assert not by_recipe["standardize"]


def test_text_with_history_pools_its_own_tokens_unless_the_head_is_of_a_paper(encoded: Path) -> None:
    for fusion in ("text", "concat", "score", "cross-attention", "probe"):
        chosen = settings(encoded, fusion)
        assert chosen["history_pool"] == "own", fusion
    assert settings(encoded, "label-guided")["history_pool"] == "all"
    assert settings(encoded, "text", fields={"history_pool": "all"})["history_pool"] == "all"


def test_the_probe_reads_the_modalities_that_a_cache_has(encoded: Path, tmp_path: Path) -> None:
    speech = write_cache(tmp_path / "speech.h5", roles=["audio"])
    assert settings(speech, "probe")["modalities"] == "audio"
    assert settings(encoded, "probe")["modalities"] == "both"
    assert settings(encoded, "probe", fields={"modalities": "text"})["modalities"] == "text"
    with pytest.raises(MmerError, match="has no stream for text, which the head needs"):
        settings(speech, "concat")


def test_lists_of_fields_say_what_auto_stands_for() -> None:
    rows = {name: (default, meaning) for name, default, _, meaning in list_fields("audio")}
    assert rows["standardize"][0] == AUTO
    assert "true for hand-made features" in rows["standardize"][1]
    assert rows["history_pool"][0] == "all"  # a head that reads no text
    assert {name: default for name, default, *_ in list_fields("text")}["history_pool"] == AUTO
    for fusion in HEADS:  # every default by stream is a field that the head accepts
        known = {name for name, *_ in list_fields(fusion)}
        assert automatic(fusion).keys() <= known
