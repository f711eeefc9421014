import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.layout import StreamPlan
from cache.stream import StreamSpec
from fusion.experiment.request import ExperimentRequest
from fusion.grid.combinations import fields_text
from fusion.grid.published import published_variants
from fusion.grid.run import estimate_grid
from fusion.grid.space import GridRequest, fields_key, grid_space
from fusion.recipes.catalog import RECIPES
from tests.support.grids import GridTold
from tests.support.runs import QUICK, reader_of, write_cache
from tests.support.toys import create, utterances_named

LEMER = "lemer-iemocap"
PLAIN = {"modalities": "text", "text_labels": "off"}


def rows(base: ExperimentRequest, cache: Path | None = None) -> list[str]:
    return [fields_text(change) for change in published_variants(base, reader_of(cache) if cache else None).changes]


@pytest.mark.parametrize(
    ("streams", "expected"),
    [({}, "bert-base"), ({"text": "roberta-tiny+history10"}, "roberta-tiny")],
    ids=["the recipe", "another encoder"],
)
def test_the_row_without_history_reads_the_same_encoder_without_it(streams: dict[str, str], expected: str) -> None:
    changes = published_variants(ExperimentRequest(recipe=LEMER, streams=streams)).changes
    assert PLAIN in changes
    assert {**PLAIN, "stream.text": expected} in changes


@pytest.mark.parametrize("name", RECIPES)
def test_no_two_rows_have_the_same_settings(name: str) -> None:
    base = ExperimentRequest(recipe=name)
    if not RECIPES[name].published.figures or not rows(base):
        return
    combinations = [{}, *grid_space(base, ablate=["published"]).changes]
    assert len({fields_key(fields) for fields in combinations}) == len(combinations)


def test_the_rows_of_table_3_of_jfm_are_rows_of_its_grid() -> None:
    changes = published_variants(ExperimentRequest(recipe="jfm-meld")).changes
    assert [change for change in changes if "fusion" in change] == [
        {"fusion": "late"},
        {"fusion": "cfa"},
        {"fusion": "concat"},
    ]


def test_a_sum_of_runs_is_named_with_its_commands(trainable: Path) -> None:
    base = ExperimentRequest(recipe=LEMER, streams={"text": "words@4"}, labels="a=happy,b=sad")
    (note,) = (text for text in published_variants(base, reader_of(trainable)).notes if "not in this grid" in text)
    train = f"mmer-train --cache {trainable}"
    assert note.startswith(f"not in this grid: sum of the logits of A5 and B5, a sum of two finished runs: {train}")
    assert f"--modalities text --text words@4 --labels a=happy,b=sad --out runs/text && {train}" in note
    assert note.endswith(f"{train} --fusion score --run runs/text --run runs/audio")


def test_rows_that_need_another_stage_of_pre_training_are_named_with_the_command(trainable: Path) -> None:
    base = ExperimentRequest(recipe=LEMER, streams={"audio": "voice", "text": "words@4"})
    (note,) = (text for text in published_variants(base, reader_of(trainable)).notes if "second-stage" in text)
    assert (
        "no stream of voice has it, so LE-MER, C2, C3, C4, B5, B4, B3 run without it, and B2 is the row of B1" in note
    )
    assert f"mmer-pretrain --cache {trainable} --encoder voice, and add their streams" in note
    assert "modalities=audio tonal_labels=off" in rows(base, trainable)


def test_a_stream_of_an_encoder_that_was_pre_trained_again_is_read_by_the_rows_that_have_it(tmp_path: Path) -> None:
    again = {"trained": "Transformer and quantizer, pre-trained", "source": "facebook/wav2vec2-base", "corpus": "other"}
    cache = write_cache(tmp_path / "again.h5", trained_on=again)
    found = rows(ExperimentRequest(recipe=LEMER), cache)
    assert found[0] == "stream.audio=voice"
    assert "modalities=audio tonal_labels=off stream.audio=voice" in found  # B2
    assert "modalities=audio tonal_labels=off" in found  # B1
    assert not [row for row in found if "modalities=text" in row and "stream.audio" in row]
    found = rows(ExperimentRequest(recipe=LEMER, streams={"audio": "voice"}), cache)
    assert "modalities=audio tonal_labels=off" in found  # B2
    assert "modalities=audio tonal_labels=off stream.audio=wav2vec2-base" in found  # B1
    notes = published_variants(ExperimentRequest(recipe=LEMER), reader_of(cache)).notes
    assert not [note for note in notes if note.startswith("second-stage")]


def test_encoders_that_were_pre_trained_on_each_fold_are_read_by_a_pattern(tmp_path: Path) -> None:
    wav2vec, again = (
        "facebook/wav2vec2-base",
        {"trained": "Transformer, pre-trained", "source": "facebook/wav2vec2-base"},
    )
    common: dict[str, Any] = {"role": "audio", "shape": (4,), "dtype": "float16"}
    specs = [StreamSpec(name="wav2vec2-base", source=wav2vec, **common)]
    specs += [StreamSpec(name=f"pre-{fold}", source="encoder", trained_on=again, **common) for fold in (1, 2)]
    plans = [StreamPlan(spec=spec, lengths=np.ones(2, np.int64), failures={}) for spec in specs]
    create(tmp_path / "folds.h5", utterances_named(["a", "b"]), plans)
    found = rows(ExperimentRequest(recipe=LEMER), tmp_path / "folds.h5")
    assert found[0] == "stream.audio=pre-*"
    assert "modalities=audio tonal_labels=off stream.audio=pre-*" in found  # B2
    assert "modalities=audio tonal_labels=off" in found  # B1
    found = rows(ExperimentRequest(recipe=LEMER, streams={"audio": "pre-*"}), tmp_path / "folds.h5")
    assert found[0] == "constraint=C2"
    assert "modalities=audio tonal_labels=off stream.audio=wav2vec2-base" in found  # B1


def test_a_text_without_history_is_named_with_the_option_that_reads_it() -> None:
    base = ExperimentRequest(recipe=LEMER, streams={"text": "roberta-tiny"})
    (note,) = (text for text in published_variants(base).notes if text.startswith("dialogue history"))
    assert note.endswith("choose the stream with history by --text roberta-tiny+history10")


def test_a_variant_whose_stream_the_cache_lacks_is_skipped_with_the_command_that_adds_it(
    trainable: Path, tmp_path: Path
) -> None:
    cache, told = reader_of(trainable), GridTold()
    base = ExperimentRequest(
        recipe=LEMER,
        fields={**QUICK, "epochs": 1},
        streams={"audio": "voice", "text": "words@4"},
        labels="a=happy,b=sad",
    )
    space = grid_space(base, ablate=["published", {**PLAIN, "stream.text": "bert-base"}], cache=cache)
    estimate = estimate_grid(GridRequest(base=base, space=space), cache, out=tmp_path / "grid", progress=told)
    assert "modalities=text text_labels=off" in estimate.combinations
    assert "modalities=text text_labels=off stream.text=bert-base" not in estimate.combinations
    notes = "\n".join(told.notes)
    assert re.search("skipped: .*stream.text=bert-base: .* has no stream bert-base; .*--encoder bert-base", notes)
    assert "not in this grid: sum of the logits" in notes
