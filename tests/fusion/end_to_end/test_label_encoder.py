"""The label encoder: the vectors of Hugging Face, how it is found, and what a run makes of it."""

import pickle
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertModel

from cache.errors import MmerError
from cache.joined import AnyCache, open_cache
from cache.stream import StreamSpec
from featurize.encoders.tiny import build_roberta_tiny, build_roberta_tiny_tokenizer
from fusion.data.features import CachedFeatures
from fusion.end_to_end.label_encoder import LabelEncoders
from fusion.experiment.plan import RunPlan, plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.grid.combinations import Combination, models_of
from fusion.run.cross_validation import build_and_prepare_head
from fusion.run.folder import RunFolder
from tests.support.checkpoints import loaded
from tests.support.models import DISTILBERT_SIZE, TEXT_SIZE, WORDS, lively, word_pieces
from tests.support.runs import train_by_command
from tests.support.voices import featurized, tone, write_corpus

REVISION = "0123456789abcdef0123456789abcdef01234567"
DESCRIPTIONS = ["i know the gardens", "zebra so", "don't"]  # whole words, pieces, and a word that is unknown
SAID = {"angry": "stop it now stop the noise", "happy": "what fun we laugh", "neutral": "the table is here"}


def saved(folder: Path, model: Any, config: Any) -> Path:
    lively(model, config).save_pretrained(folder)
    word_pieces().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with its tokenizer in a folder."""
    config = BertConfig(**TEXT_SIZE, vocab_size=len(WORDS))
    return saved(tmp_path_factory.mktemp("bert") / "mini", BertForMaskedLM, config)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of the built-in encoders: three sessions, three classes, and nobody says "neutral"."""
    import soundfile

    folder, rows = tmp_path_factory.mktemp("corpus"), []
    for index in range(18):
        label = list(SAID)[index % 3]
        words = SAID[label].split()
        session, turn = divmod(index, 6)
        row = {"id": f"u{index:02}", "label": label, "text": " ".join(words[index % 2 :]), "session": session + 1}
        rows.append({**row, "speaker": f"s{session}{turn % 2}", "dialogue": f"d{session}{turn // 3}", "turn": turn % 3})
        soundfile.write(folder / f"u{index:02}.wav", tone(0.25, pitch_hz=100 + index, seed=index), 16_000)
    featurized(write_corpus(folder, rows), folder / "a.h5", mel=False)
    return folder / "a.h5"


def by_hugging_face(model: Any, tokenizer: Any, text: str, state: int = -1) -> npt.NDArray[np.float64]:
    """Averages the non-special tokens of one text, as Hugging Face computes and marks them."""
    inputs = tokenizer(text, return_special_tokens_mask=True, return_tensors="pt")
    special = inputs.pop("special_tokens_mask")[0].bool()
    with torch.inference_mode():
        hidden = model(**inputs, output_hidden_states=True).hidden_states[state][0]
    mean: npt.NDArray[np.float64] = hidden[~special].double().mean(dim=0).numpy()
    return mean


def tiny_vectors(texts: Sequence[str]) -> npt.NDArray[np.float64]:
    model, tokenizer = build_roberta_tiny(), build_roberta_tiny_tokenizer()
    return np.stack([by_hugging_face(model, tokenizer, text) for text in texts])


def spec_of(folder: Path, layers: str = "last", **changes: Any) -> StreamSpec:
    """The record of a text stream of a checkpoint."""
    (encoder,) = loaded(f"{folder}" if layers == "last" else f"mini={folder}@{layers}").text
    return replace(encoder.specs[0], **changes)


def asked(cache: AnyCache, label_encoder: str = "", **fields: object) -> RunPlan:
    request = ExperimentRequest(
        fusion="label-guided",
        fields={"min_count": 1, "words": 3, "frames": 4, **fields},
        label_encoders=LabelEncoders(requested=label_encoder),
    )
    return plan_run(request.experiment(cache), cache)


def label_rows(plan: RunPlan, role: str = "text") -> tuple[npt.NDArray[np.float32], list[str]]:
    """Prepares the head on the first fold; returns the rows of its labels and its notes."""
    source = CachedFeatures(plan.cache, plan.selection.streams, plan.split.classes)
    head: Any = build_and_prepare_head(plan, source, plan.split.folds[0].train, seed=0)
    return head[0].labels[role].rows.detach().numpy(), head[1]


def test_a_folder_gives_the_mean_of_the_tokens_that_are_not_special(bert: Path) -> None:
    encoder, note = LabelEncoders(requested=f"mini={bert}").find(spec_of(bert))
    assert encoder is not None
    assert note == "label embeddings start from mini, which reads the words of each class (L-4)"
    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    expected = [by_hugging_face(model, tokenizer, text) for text in DESCRIPTIONS]
    np.testing.assert_allclose(encoder(DESCRIPTIONS), expected, atol=1e-5)


def test_the_hidden_states_are_those_of_the_stream(bert: Path) -> None:
    model, tokenizer = AutoModel.from_pretrained(bert).eval(), AutoTokenizer.from_pretrained(bert)
    states = [np.stack([by_hugging_face(model, tokenizer, text, state) for text in DESCRIPTIONS]) for state in range(3)]
    for layers, expected in (
        ("1", states[1]),
        ("all", np.mean(states, axis=0)),
        ("mean0-1", (states[0] + states[1]) / 2),
    ):
        encoder, _ = LabelEncoders(requested=f"mini={bert}").find(spec_of(bert, layers))
        assert encoder is not None
        np.testing.assert_allclose(encoder(DESCRIPTIONS), expected, atol=1e-5)


def test_a_built_in_encoder_is_found_by_the_stream(corpus: Path) -> None:
    spec = open_cache(corpus).stream("roberta-tiny").spec
    encoder, note = LabelEncoders().find(spec)
    assert encoder is not None
    assert note == "label embeddings start from roberta-tiny, which reads the words of each class (L-4)"
    assert encoder.identity == {
        "weights": spec.weights,
        "tokenizer": spec.preprocessing["tokenizer"],
        "layers": "last",
    }
    np.testing.assert_allclose(encoder(DESCRIPTIONS), tiny_vectors(DESCRIPTIONS), atol=1e-5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(encoder))(["so"]), encoder(["so"]))


def test_a_built_in_encoder_of_other_weights_is_not_the_one_of_the_stream(corpus: Path) -> None:
    spec = replace(open_cache(corpus).stream("roberta-tiny").spec, weights="0" * 32)
    found, note = LabelEncoders().find(spec)
    assert found is None
    assert "roberta-tiny of this version has other weights; pass --label-encoder" in note


def in_hub_cache(home: Path, folder: Path, *, without: str = "") -> None:
    snapshot = home / "models--acme--mini" / "snapshots" / REVISION
    shutil.copytree(folder, snapshot, ignore=shutil.ignore_patterns(*([without] if without else [])))


def test_a_checkpoint_of_the_hub_cache_is_found_by_its_revision(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hub_cache(tmp_path, bert)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    spec = spec_of(bert, source="acme/mini", revision=REVISION)
    encoder, note = LabelEncoders().find(spec)
    assert encoder is not None
    assert note.startswith("label embeddings start from acme/mini, ")
    named, _ = LabelEncoders(requested=f"mini={bert}").find(spec)
    assert named is not None
    assert encoder.identity == named.identity
    np.testing.assert_array_equal(encoder(DESCRIPTIONS), named(DESCRIPTIONS))
    absent, why = LabelEncoders().find(replace(spec, revision="f" * 40))
    assert absent is None
    assert "(L-4): acme/mini at revision ffffffff is not in the hub cache; pass --label-encoder [NAME=]SOURCE" in why


@pytest.mark.parametrize("without", ["*.safetensors", "tokenizer*", "config.json"])
def test_an_incomplete_checkpoint_of_the_hub_cache_is_not_available(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without: str
) -> None:
    in_hub_cache(tmp_path, bert, without=without)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found, note = LabelEncoders().find(spec_of(bert, source="acme/mini", revision=REVISION))
    assert found is None
    assert "is not in the hub cache" in note


def test_a_stream_that_does_not_lead_to_its_encoder_says_so(bert: Path) -> None:
    for spec, why in (
        (spec_of(bert), "the folder of mini is not known; pass --label-encoder mini=FOLDER"),
        (spec_of(bert, weights=""), "mini does not record its encoder; pass --label-encoder"),
        (spec_of(bert, preprocessing={"imported": "emobox"}), "mini does not record its encoder"),
    ):
        found, note = LabelEncoders().find(spec)
        assert found is None
        assert note.startswith(f"label embeddings start from the cached vectors of their words (L-4): {why}")


def test_an_encoder_that_is_named_must_be_available_and_fit(bert: Path, tmp_path: Path) -> None:
    wide = DistilBertConfig(**{**DISTILBERT_SIZE, "dim": 48}, vocab_size=len(WORDS))
    other = saved(tmp_path / "wide", DistilBertModel, wide)
    for requested, match in (
        ("bertt-base", "unknown encoder 'bertt-base'; did you mean bert-base"),
        ("acme/nothing", "acme/nothing is neither in the hub cache nor reachable"),
        ("wav2vec2-tiny", "wav2vec2-tiny is an encoder of speech; name an encoder of text, or off"),
        (str(other), "wide has vectors of width 48, text stream mini of 32; name an encoder of that width, or off"),
    ):
        with pytest.raises(MmerError, match=match):
            LabelEncoders(requested=requested).find(spec_of(bert))


def test_an_encoder_whose_files_have_changed_is_an_error(bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bert, tmp_path / "mini"))
    encoder, _ = LabelEncoders(requested=f"mini={folder}").find(spec_of(bert))
    assert encoder is not None
    moved = replace(
        encoder,
        source=str(
            saved(
                tmp_path / "other",
                BertForMaskedLM,
                BertConfig(**{**TEXT_SIZE, "num_hidden_layers": 1}, vocab_size=len(WORDS)),
            )
        ),
    )
    with pytest.raises(MmerError, match="is not the encoder mini that was found before"):
        moved(["so"])


def test_another_encoder_of_the_same_width_is_accepted_with_a_note(bert: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "mini", DistilBertModel, DistilBertConfig(**DISTILBERT_SIZE, vocab_size=len(WORDS)))
    encoder, note = LabelEncoders(requested=str(other)).find(spec_of(bert))
    assert encoder is not None
    assert note.endswith("(L-4), another encoder than that of mini")


def test_labels_start_at_the_vector_of_the_words_that_describe_a_class(corpus: Path) -> None:
    rows, notes = label_rows(asked(open_cache(corpus)))
    words = {
        note.split()[0]: note.partition("by the words ")[2].split(", ") for note in notes if "described by" in note
    }
    assert list(words) == ["angry", "happy", "neutral"]
    assert set(words["angry"]) <= set(SAID["angry"].split())
    np.testing.assert_allclose(rows, tiny_vectors([" ".join(of_class) for of_class in words.values()]), atol=1e-5)


@pytest.mark.parametrize(("role", "fields"), [("text", {"text_labels": "label-word"})])
def test_a_class_whose_name_nobody_says_has_a_row_of_its_own(corpus: Path, role: str, fields: dict[str, Any]) -> None:
    cache = open_cache(corpus)
    assert not any("neutral" in utterance.text for utterance in cache.utterances)
    rows, notes = label_rows(asked(cache, **fields), role)
    np.testing.assert_allclose(rows, tiny_vectors(["angry", "happy", "neutral"]), atol=1e-5)
    assert not any("starts at random" in note for note in notes)
    _, without = label_rows(asked(cache, "off", **fields), role)
    assert "neutral starts at random: no training utterance contains its name" in without


def test_tonal_labels_from_text_start_at_the_same_vectors(corpus: Path) -> None:
    audio, _ = label_rows(asked(open_cache(corpus), modalities="audio", tonal_labels="text"), "audio")
    text, _ = label_rows(asked(open_cache(corpus)))
    np.testing.assert_array_equal(audio, text)


def test_off_is_the_run_without_a_label_encoder_and_another_run_than_with_one(corpus: Path) -> None:
    cache = open_cache(corpus)
    plain = plan_run(replace(asked(cache).experiment, label_encoder=None, notes=()), cache)
    off, used = asked(cache, "off"), asked(cache)
    assert off.identity == plain.identity
    assert off.notes == plain.notes
    assert {name for name in used.identity if used.identity[name] != off.identity.get(name)} == {"label_encoder"}
    keys = {models_of(Combination(fields={}, plan=plan))[0].key for plan in (off, used)}
    assert len(keys) == 2
    random = asked(cache, text_labels="random")  # reads no words
    assert (random.experiment.label_encoder, random.experiment.notes) == (None, ())


def test_the_command_records_the_encoder_and_refuses_one_that_has_no_use(corpus: Path, tmp_path: Path) -> None:
    options = ("--fusion", "label-guided", "--set", "min_count=1", "--epochs", "1", "--out", str(tmp_path / "run"))
    result = train_by_command(corpus, *options)
    assert result.exit_code == 0, result.output
    assert "label embeddings start from roberta-tiny, which reads the words of each class (L-4)" in result.output
    record = RunFolder(tmp_path / "run").read("run.json")
    assert record["decides"]["label_encoder"]["weights"] == open_cache(corpus).stream("roberta-tiny").spec.weights
    again = train_by_command(corpus, *options, "--label-encoder", "off")
    assert again.exit_code == 1
    assert "already holds a different run (label_encoder: {'weights'" in again.output
    useless = train_by_command(corpus, "--fusion", "text", "--label-encoder", "roberta-tiny")
    assert useless.exit_code == 1
    assert "head text with these fields reads no words of classes; omit --label-encoder" in useless.output
