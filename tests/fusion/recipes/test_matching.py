from dataclasses import replace

import pytest

from cache.stream import StreamSpec
from featurize.encoders.catalog import BUILT_IN, ENCODERS
from fusion.recipes.matching import (
    CHECKPOINTS,
    Match,
    ReadStream,
    RunFacts,
    differences,
    match_figure,
    streams_fit,
)
from fusion.recipes.published import PRINTED, PUBLISHED, Figure, Published

CHANGES: list[dict[str, object]] = [{}, {"layers": 2}, {"layers": 2, "alpha": 0.0}, {"gate": False}]
FIGURES = tuple(Figure(what=str(change), status=PRINTED, change=change) for change in CHANGES)
ELSEWHERE = Figure(what="elsewhere", status=PRINTED, change={"dim": 8}, head="concat")
STREAMS = {"audio": ("wav2vec2-base", "hubert-base"), "text": ("bert-base+history10",)}
PAPER = Published(paper="a", protocol="b", streams=STREAMS, figures=(*FIGURES, ELSEWHERE))
READ = {role: ReadStream.named(names[0]) for role, names in STREAMS.items()}


def run(changed: list[str], **streams: ReadStream) -> RunFacts:
    return RunFacts(protocol="session", labels="a", frozen=True, streams={**READ, **streams}, changed=changed)


def spec(name: str = "voice", source: str = "facebook/wav2vec2-base", **values: object) -> StreamSpec:
    fields: dict[str, object] = {"name": name, "role": "audio", "source": source, "shape": (4,), "dtype": "float16"}
    return StreamSpec(**{**fields, **values})  # type: ignore[arg-type]


def test_a_variant_has_the_head_and_exactly_the_changes_of_a_run() -> None:
    runs = [[], ["layers=2"], ["alpha=0.0", "layers=2"], ["layers=3"], ["alpha=0.0"], ["gate=False"], ["dim=8"]]
    found = [match_figure(PAPER, run(changed)) for changed in runs]
    expected = [None, FIGURES[1], FIGURES[2], None, None, FIGURES[3], None]
    assert found == [figure and Match(figure=figure) for figure in expected]


@pytest.mark.parametrize(
    "stream",
    [
        {"audio": ReadStream.named("wavlm-base")},
        {"audio": ReadStream.named("wav2vec2-base@9")},
        {"audio": replace(READ["audio"], second_stage=True)},
        {"text": ReadStream.named("bert-base")},
        {"text": ReadStream.named("bert-base+history5")},
        {"text": ReadStream.named("roberta-base+history10")},
    ],
    ids=lambda stream: ", ".join(map(str, stream.values())),
)
def test_a_figure_is_not_matched_with_a_run_of_other_streams(stream: dict[str, ReadStream]) -> None:
    assert match_figure(PAPER, run(["layers=2"])) == Match(figure=FIGURES[1])
    assert match_figure(PAPER, run(["layers=2"], **stream)) is None


def test_any_stream_that_the_paper_names_fits_and_roles_without_a_figure_do_not_count() -> None:
    assert match_figure(PAPER, run(["layers=2"], audio=ReadStream.named("hubert-base")))
    assert match_figure(PAPER, run(["layers=2"], chars=ReadStream.named("ctc.chars")))


@pytest.mark.parametrize("name", [name for name in PUBLISHED if not name.startswith("lemer")])
def test_every_published_variant_is_matched_with_its_own_run_and_with_no_other(name: str) -> None:
    published = PUBLISHED[name]
    streams = {role: ReadStream.named(names[0]) for role, names in published.streams.items()}
    for figure in published.figures:
        changed = [f"{field}={value}" for field, value in figure.change.items()]
        facts = RunFacts(protocol="session", labels="a", frozen=True, streams=streams, changed=changed)
        found = match_figure(published, facts)
        assert (found.figure if found else None) == (figure if changed else None)
        assert match_figure(published, replace(facts, changed=[*changed, "lr=1.0"])) is None
        for role in streams:
            other = {**streams, role: ReadStream.named("mfcc39")}
            assert match_figure(published, replace(facts, streams=other)) is None


def test_every_figure_of_lemer_is_matched_with_the_run_that_its_streams_name() -> None:
    published = PUBLISHED["lemer-iemocap"]
    found = {}
    for figure in published.figures:
        streams = {role: figure.streams.get(role, names[0]) for role, names in published.streams.items()}
        read = {
            role: replace(ReadStream.named(name), second_stage=role in figure.second_stage)
            for role, name in streams.items()
        }
        changed = [f"{field}={value}" for field, value in figure.change.items()]
        facts = RunFacts(protocol="session", labels="a", frozen=True, streams=read, changed=changed)
        match = match_figure(published, facts)
        found[figure.what[:2]] = match.figure.what[:2] if match else ""
    variants = ("C2", "C3", "C4", "A5", "A4", "A3", "A2", "A1", "B5", "B4", "B3", "B2", "B1")
    assert found == {"LE": "", "su": "", **{name: name for name in variants}}


def test_an_encoder_is_its_checkpoint_whatever_its_stream_is_called() -> None:
    assert ReadStream.of(spec()).encoder == "wav2vec2-base"
    impostor = ReadStream.of(spec("wav2vec2-base", "someone/else"))
    assert impostor.encoder == "someone/else"
    assert not impostor.fits(ReadStream.named("wav2vec2-base"))


def test_a_spec_has_layers_history_and_the_stage_of_pre_training() -> None:
    text = spec("bert-base@9+history10", "google-bert/bert-base-uncased", layers="9", preprocessing={"history": 10})
    assert ReadStream.of(text) == ReadStream.named("bert-base@9+history10")
    again = {
        "trained": "Transformer and quantizer, pre-trained",
        "source": "facebook/wav2vec2-base",
        "corpus": "iemocap",
    }
    stream = ReadStream.of(spec("twice", "folder", trained_on=again))
    assert (stream.encoder, stream.second_stage) == ("wav2vec2-base", True)
    tuned = {"corpus": "iemocap", "tuned": "audio", "source": "facebook/wav2vec2-base"}
    assert not ReadStream.of(spec("tuned", "folder", trained_on=tuned)).second_stage
    both = ReadStream.of(spec("tuned", "folder", trained_on={**tuned, "earlier": again}))
    assert (both.encoder, both.second_stage) == ("wav2vec2-base", True)


def test_the_checkpoints_are_those_of_the_catalog() -> None:
    sources = {name: ENCODERS[name].source for name in CHECKPOINTS}
    assert {name: name if source == BUILT_IN else source for name, source in sources.items()} == CHECKPOINTS
    named = {name for paper in PUBLISHED.values() for names in paper.streams.values() for name in names}
    assert {ReadStream.named(name).encoder for name in named} <= set(CHECKPOINTS)


def test_a_figure_that_was_pre_trained_once_differs_from_a_run_that_was_pre_trained_twice() -> None:
    again = {**READ, "audio": replace(READ["audio"], second_stage=True)}
    assert differences(PAPER, FIGURES[0], READ) == []
    assert differences(PAPER, FIGURES[0], again) == ["second-stage pre-training"]
    assert not streams_fit(PAPER, FIGURES[0], again)
    assert streams_fit(PAPER, FIGURES[0], again, any_stage=True)
