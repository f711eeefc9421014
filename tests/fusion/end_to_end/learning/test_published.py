"""Published figures next to runs whose encoders learn."""

from pathlib import Path

from fusion.recipes.matching import ReadStream
from fusion.run.published import read_streams
from tests.support.tuned import planned, request


def test_an_encoder_that_learns_is_read_at_the_layers_of_the_head_and_not_where_it_starts(learning: Path) -> None:
    plan = planned(learning, request("rescmfa", "audio", "text=2"))
    assert plan.selection.streams["audio"] == "wav2vec2-tiny@conv"
    found = {role: (stream.encoder, stream.layers) for role, stream in read_streams(plan).items() if role != "chars"}
    frozen = read_streams(planned(learning, request("rescmfa")))
    assert found == {"audio": ("wav2vec2-tiny", "last"), "text": ("roberta-tiny", "last")}
    assert {role: frozen[role] for role in found} == {
        "audio": ReadStream.named("wav2vec2-tiny"),
        "text": ReadStream.named("roberta-tiny"),
    }
