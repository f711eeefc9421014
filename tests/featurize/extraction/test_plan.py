from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch
from hypothesis import given, settings

from cache.errors import MmerError
from cache.stream import StreamSpec
from cache.utterance import Utterance
from featurize.corpora.base import CorpusReading
from featurize.encoders.base import InputPlan, Waveform
from featurize.encoders.catalog import parse_requests
from featurize.encoders.load import character_targets, load_encoders
from featurize.encoders.options import EncodingOptions
from featurize.extraction.plan import (
    EncoderPlan,
    Inputs,
    pack_batches,
    plan_encoder,
    read_inputs,
    speech_digest,
    transcript_digest,
)
from featurize.inputs.audio import AudioSpan, Recording
from featurize.inputs.transcript import Dialogues, Turn
from tests.support.models import turns
from tests.support.voices import RATE_HZ, tone

COSTS = st.lists(st.integers(0, 200), max_size=40)
BUDGETS = st.integers(0, 1000) | st.floats(0, 1000)


@given(COSTS, BUDGETS)
def test_every_utterance_is_in_one_batch(costs: list[int], budget: float) -> None:
    batches = pack_batches(costs, range(len(costs)), budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(costs)))
    assert all(batches)


@given(COSTS, BUDGETS)
def test_a_batch_keeps_its_budget_unless_it_is_a_single_utterance(costs: list[int], budget: float) -> None:
    for batch in pack_batches(costs, range(len(costs)), budget):
        assert len(batch) == 1 or max(costs[index] for index in batch) * len(batch) <= budget


@given(COSTS, BUDGETS)
def test_batches_are_filled_and_sorted_by_length(costs: list[int], budget: float) -> None:
    batches = pack_batches(costs, range(len(costs)), budget)
    order = [costs[index] for batch in batches for index in batch]
    assert order == sorted(order, reverse=True)
    for batch in batches[:-1]:  # one more would not have fitted
        assert costs[batch[0]] * (len(batch) + 1) > budget


@given(st.data(), COSTS, BUDGETS)
def test_batches_depend_neither_on_the_order_of_the_indices_nor_on_the_run(
    data: st.DataObject, costs: list[int], budget: float
) -> None:
    shuffled = data.draw(st.permutations(range(len(costs))))
    assert pack_batches(costs, shuffled, budget) == pack_batches(costs, range(len(costs)), budget)


def test_only_the_given_indices_are_packed() -> None:
    assert pack_batches([5, 6, 7, 8], [3, 1], 100) == [[3, 1]]
    assert pack_batches([5, 6], [], 100) == []


def test_no_budget_means_one_by_one() -> None:
    assert pack_batches([3, 1, 2], [0, 1, 2], 0) == [[0], [2], [1]]


class Counting:
    """A speech encoder that is a function of the waveform: a frame of its mean every hundred samples."""

    def __init__(self) -> None:
        self.specs = [StreamSpec(name="a", role="audio", source="a", shape=(1,), dtype="float32", rate_hz=160.0)]
        self.start_weights: Mapping[str, npt.NDArray[Any]] = {}

    def plan(self, sizes: Sequence[int]) -> list[InputPlan]:
        return [InputPlan(rows=(size // 100,), cost=size // 100, note=f"{size} samples") for size in sizes]

    def encode(self, inputs: Sequence[Waveform], *, precise: bool = False) -> list[tuple[Any, ...]]:
        return [(np.full((len(waveform) // 100, 1), waveform.mean()),) for waveform in inputs]


def span(seconds: float, rate_hz: int = RATE_HZ) -> AudioSpan:
    samples = round(seconds * rate_hz)
    whole = Recording(path=Path("a.wav"), rate_hz=rate_hz, samples=samples, seekable=True)
    return AudioSpan(recording=whole, start=0, stop=samples)


def inputs_of(*spans: AudioSpan | str) -> Inputs:
    utterances = [Utterance(id=str(index), text=f"text {index}") for index in range(len(spans))]
    remarks = [""] * len(spans)
    return Inputs(
        root=Path(), utterances=utterances, spans=list(spans), remarks=remarks, dialogues=Dialogues(utterances)
    )


def test_utterances_that_are_too_long_or_unreadable_fail_and_the_rest_is_planned() -> None:
    inputs = inputs_of(span(1), span(2.5), "missing", span(2), span(3, 48_000))
    plan = plan_encoder(Counting(), inputs, max_seconds=2, chunk=False)
    assert [planned.failure for planned in plan.planned] == [
        "",
        "2.5 s, longer than --max-seconds 2; raise it or pass --chunk",
        "missing",
        "",
        "3 s, longer than --max-seconds 2; raise it or pass --chunk",
    ]
    assert [planned.rows for planned in plan.planned] == [(160,), (), (), (320,), ()]
    assert [planned.note for planned in plan.planned if not planned.failure] == ["16000 samples", "32000 samples"]
    (stream,) = plan.streams()
    assert stream.lengths.tolist() == [160, 0, 0, 320, 0]
    assert stream.failures == {1: plan.planned[1].failure, 2: "missing", 4: plan.planned[4].failure}


def test_chunks_have_no_limit() -> None:
    plan = plan_encoder(Counting(), inputs_of(span(2.5), "missing"), max_seconds=2, chunk=True)
    assert [planned.failure for planned in plan.planned] == ["", "missing"]


def test_a_recording_just_over_the_limit_is_not_told_to_be_as_long_as_the_limit() -> None:
    (planned,) = plan_encoder(Counting(), inputs_of(span(2.0001)), max_seconds=2, chunk=False).planned
    assert not planned.failure.startswith("2.0 s, longer than --max-seconds 2;")


def reading(root: Path, *utterances: Utterance, **remarks: str) -> CorpusReading:
    return CorpusReading(root=root, utterances=list(utterances), remarks=remarks)


def test_inputs_are_cleaned_probed_and_given_their_duration(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(1.5), RATE_HZ)
    inputs = read_inputs(
        reading(
            tmp_path,
            Utterance(id="whole", audio="a.wav", text="a\0b"),
            Utterance(id="part", audio="a.wav", start_s=0.25, end_s=1.0, text="so", speaker="s\0"),
            Utterance(id="gone", audio="b.wav"),
            Utterance(id="beyond", audio="a.wav", start_s=1.0, end_s=2.0, text="so"),
            Utterance(id="none", text="so"),
            part="overlaps",
            gone="odd",
        )
    )
    assert [utterance.duration_s for utterance in inputs.utterances] == [1.5, 0.75, None, None, None]
    assert [utterance.text for utterance in inputs.utterances] == ["ab", "so", "", "so", "so"]
    assert inputs.utterances[1].speaker == "s"
    assert inputs.remarks == ["1 NUL character removed", "overlaps", "odd; empty transcript", "", ""]
    whole, part, *failed = inputs.spans
    assert isinstance(whole, AudioSpan)
    assert isinstance(part, AudioSpan)
    assert (whole.start, whole.stop, part.start, part.stop) == (0, 24_000, 4000, 16_000)
    beyond = "span 1 to 2 s does not lie in the recording of 1.500 s"
    assert failed == [f"missing: not found (tried {tmp_path}/b.wav)", beyond, "no recording given"]


def test_a_limit_takes_the_first_utterances(tmp_path: Path) -> None:
    utterances = [Utterance(id=name) for name in "abc"]
    assert [utterance.id for utterance in read_inputs(reading(tmp_path, *utterances), limit=2).utterances] == ["a", "b"]
    assert len(read_inputs(reading(tmp_path, *utterances)).utterances) == 3


def test_an_id_of_nothing_but_undecodable_characters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"id .* holds only undecodable characters"):
        read_inputs(reading(tmp_path, Utterance(id="\udcff\0")))


def test_ids_that_are_equal_once_cleaned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match="duplicate id"):
        read_inputs(reading(tmp_path, Utterance(id="a"), Utterance(id="a\0")))


@cache
def encoders() -> dict[str, Any]:
    """Every kind of encoder, several streams each."""
    options = EncodingOptions(device=torch.device("cpu"), truncate=True)
    requests = parse_requests(["wav2vec2-tiny", "wav2vec2-tiny@all", "logmel80", "mfcc39", "roberta-tiny@1,4"])
    plain = load_encoders(requests, options)
    pieces = EncodingOptions(device=torch.device("cpu"), chunk=True, max_seconds=0.3)
    (chunked,) = load_encoders(parse_requests(["pieces=wav2vec2-tiny"]), pieces).speech
    every: list[Any] = [*plain.speech, chunked, *plain.text, character_targets(options)]
    return {encoder.specs[0].name: encoder for encoder in every}


@pytest.mark.parametrize("name", ["wav2vec2-tiny", "logmel80", "mfcc39", "pieces"])
@settings(max_examples=15)
@given(sizes=st.lists(st.integers(1, 1000) | st.integers(1, 12_000), min_size=1, max_size=4))
def test_speech_encoders_give_the_rows_that_were_planned(name: str, sizes: list[int]) -> None:
    encoder = encoders()[name]
    waves = [np.random.default_rng(size).standard_normal(size).astype(np.float32) for size in sizes]
    check_rows(encoder, encoder.plan(sizes), encoder.encode(waves))


@pytest.mark.parametrize("name", ["roberta-tiny@1,4", "ctc.chars"])
@settings(max_examples=15)
@given(texts=st.lists(st.text(max_size=30) | st.just("[LAUGHTER] I  know "), min_size=1, max_size=4))
def test_text_encoders_give_the_rows_that_were_planned(name: str, texts: list[str]) -> None:
    encoder = encoders()[name]
    check_rows(encoder, encoder.plan(turns(*texts)), encoder.encode(turns(*texts)))


def check_rows(encoder: Any, planned: Sequence[InputPlan], encoded: Sequence[tuple[Any, ...]]) -> None:
    for plan, rows in zip(planned, encoded, strict=True):
        assert tuple(len(array) for array in rows) == plan.rows
        assert [array.shape[1:] for array in rows] == [spec.shape for spec in encoder.specs]


def test_a_plan_has_a_stream_for_each_spec() -> None:
    plan = EncoderPlan(
        encoder=encoders()["wav2vec2-tiny"],
        consumes="speech",
        planned=[InputPlan(rows=(3, 3, 3), cost=3), InputPlan(failure="missing"), InputPlan(rows=(5, 5, 5), cost=5)],
    )
    assert [stream.spec.name for stream in plan.streams()] == [
        "wav2vec2-tiny",
        "wav2vec2-tiny@all",
        "wav2vec2-tiny.codes",
    ]
    assert all(stream.lengths.tolist() == [3, 0, 5] for stream in plan.streams())
    assert all(stream.failures == {1: "missing"} for stream in plan.streams())


def test_pieces_change_the_digest_of_long_sound_alone() -> None:
    (whole, pieces) = (encoders()[name].specs[0] for name in ("wav2vec2-tiny", "pieces"))
    sound = bytes(16)
    assert speech_digest(sound, 4801, whole) == speech_digest(sound, 4800, pieces) == sound
    assert speech_digest(sound, 4801, pieces) != sound
    assert len(speech_digest(sound, 4801, pieces)) == 16


def test_the_digest_of_a_transcript_is_that_of_what_the_stream_holds_of_it() -> None:
    vectors, tokens = encoders()["roberta-tiny@1,4"].specs
    assert transcript_digest(Turn("I  know"), vectors) == transcript_digest(Turn(" I know [LAUGHTER]"), vectors)
    assert transcript_digest(Turn("I  know"), tokens) != transcript_digest(Turn("I know"), tokens)  # their spans differ
    assert transcript_digest(Turn("I know"), vectors) != transcript_digest(Turn("I knew"), vectors)
