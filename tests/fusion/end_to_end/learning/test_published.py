"""Published figures next to runs whose encoders learn."""

from dataclasses import replace
from pathlib import Path

from fusion.recipes.matching import ReadStream
from fusion.run.published import compare_run, read_streams
from tests.support.tuned import planned, request

LABELS = "ang=angry,hap=happy,sad=sad"
MEAN = {"wa": 0.5, "ua": 0.5, "wf1": 0.5}


def test_an_encoder_that_learns_is_read_at_the_layers_of_the_head_and_not_where_it_starts(learning: Path) -> None:
    plan = planned(learning, request("rescmfa", "audio", "text=2"))
    assert plan.selection.streams["audio"] == "wav2vec2-tiny@conv"
    frozen = planned(learning, request("rescmfa"))
    expected = {"audio": ReadStream.named("wav2vec2-tiny"), "text": ReadStream.named("roberta-tiny")}
    for found in map(read_streams, (plan, frozen)):
        assert {role: stream for role, stream in found.items() if role in expected} == expected


def test_encoders_that_learn_are_a_difference_to_a_recipe_of_frozen_features(learning: Path) -> None:
    def obtained(*tune: str) -> str:
        asked = replace(request("rescmfa", *tune), recipe="gcf2net-iemocap", labels=LABELS, protocol="session")
        return compare_run(planned(learning, asked), {"mean": MEAN, "protocol": "session"})[1]

    assert "--tune" not in obtained()
    line = obtained("audio")
    assert ", fine-tuned encoders, protocol session, " in line
    assert line.endswith(", audio=wav2vec2-tiny, text=roberta-tiny, --tune audio=all")
