from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given

from cache.errors import MmerError
from featurize.encoders.catalog import ENCODERS, EncoderRequest, parse_requests
from featurize.encoders.layers import LayerChoice, parse_layers

NAMES = st.from_regex(r"[A-Za-z0-9_.-]*[A-Za-z0-9]", fullmatch=True)
SOURCES = st.sampled_from([*ENCODERS, "acme/mini", "acme/wav2vec2.0_mini-2"])
LAYERS = st.sampled_from(["12", "4,8,12", "all", "mean9-12"])


def request(text: str) -> EncoderRequest:
    (found,) = parse_requests([text])
    return found


def expected(name: str, source: str, *layers: str) -> EncoderRequest:
    return EncoderRequest(name=name, source=source, layers=layers or ("last",))


@given(NAMES, SOURCES, LAYERS)
def test_name_source_and_layers_are_read(name: str, source: str, layers: str) -> None:
    default = source.rsplit("/", maxsplit=1)[-1]
    assert request(source) == expected(default, source)
    assert request(f"{source}@{layers}") == expected(default, source, layers)
    assert request(f"{name}={source}") == expected(name, source)
    assert request(f"{name}={source}@{layers}") == expected(name, source, layers)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_name_of_the_catalog_can_be_asked_for(name: str) -> None:
    assert request(name) == expected(name, name)
    assert ENCODERS[name].modality in {"speech", "text"}
    assert (ENCODERS[name].rate_hz > 0) == (ENCODERS[name].modality == "speech")
    assert ENCODERS[name].dim > 0


def test_the_catalog_holds_what_was_promised() -> None:
    hub = {name: spec.source for name, spec in ENCODERS.items() if spec.source != "built-in"}
    assert set(ENCODERS) - set(hub) == {"logmel80", "mfcc39", "wav2vec2-tiny", "vit-mel-tiny", "roberta-tiny"}
    assert set(hub) == {
        *("wav2vec2-base", "wav2vec2-base-960h", "wav2vec2-large", "hubert-base", "hubert-large"),
        *("wavlm-base", "wavlm-base-plus", "wavlm-large"),
        *("wav2vec2-conformer-rel-pos-large", "wav2vec2-conformer-rope-large", "data2vec-audio-base", "xls-r-300m"),
        *("mms-300m", "mms-1b", "unispeech-sat-base-plus", "unispeech-sat-large", "w2v-bert-2.0"),
        *("whisper-tiny", "whisper-tiny.en", "whisper-base", "whisper-small", "whisper-medium"),
        *("whisper-large-v2", "whisper-large-v3", "whisper-large-v3-turbo"),
        *("xlm-roberta-base", "multilingual-e5-base", "modernbert-base"),
        *("roberta-base", "roberta-large", "bert-base", "distilbert-base", "deberta-v3-base", "vit-mel-base"),
    }
    assert all(source.count("/") == 1 for source in hub.values())
    widths = {"base": 768, "plus": 768, "960h": 768, "large": 1024, "300m": 1024, "1b": 1280, "2.0": 1024}
    whisper = {"tiny": 384, "tiny.en": 384, "small": 768, "medium": 1024, "v2": 1280, "v3": 1280, "turbo": 1280}
    ends = {name: name.rsplit("-", maxsplit=1)[-1] for name in hub if name != "whisper-base"}
    assert all(ENCODERS[name].dim == {**widths, **whisper}[end] for name, end in ends.items())
    assert ENCODERS["whisper-base"].dim == 512


def test_a_folder_is_called_by_its_last_component(tmp_path: Path) -> None:
    folder = tmp_path / "my encoder"
    folder.mkdir()
    assert request(str(folder)) == expected("my encoder", str(folder))
    assert request(f"{folder}/") == expected("my encoder", str(folder))
    assert request(f"short={folder}@all") == expected("short", str(folder), "all")


def test_a_folder_may_hold_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lr=1e-4" / "encoder"
    folder.mkdir(parents=True)
    assert request(str(folder)) == expected("encoder", str(folder))
    assert request(f"short={folder}@3") == expected("short", str(folder), "3")
    monkeypatch.chdir(tmp_path)
    assert request("./lr=1e-4").source == "./lr=1e-4"


@pytest.mark.parametrize("path", ["run@2/encoder", "run@2"])
def test_a_folder_may_hold_an_at_sign(tmp_path: Path, path: str) -> None:
    folder = tmp_path / path
    folder.mkdir(parents=True)
    assert request(f"short={folder}") == expected("short", str(folder))
    assert request(f"short={folder}@3") == expected("short", str(folder), "3")


def test_layers_of_one_encoder_are_computed_together_in_the_order_asked_for() -> None:
    found = parse_requests(["bert-base@4", "wav2vec2-tiny", "bert-base", "bert-base@all"])
    assert found == [expected("bert-base", "bert-base", "4", "last", "all"), expected("wav2vec2-tiny", "wav2vec2-tiny")]


def test_one_source_may_have_two_names() -> None:
    assert parse_requests(["a=bert-base", "b=bert-base"]) == [expected("a", "bert-base"), expected("b", "bert-base")]


@pytest.mark.parametrize(
    ("texts", "proposal"),
    [
        (["acme/mini", "other/mini"], "mini-2=other/mini"),
        (["roberta-base", "roberta-base=bert-base"], "roberta-base-2=bert-base"),
        (["x=acme/a@1", "x=acme/b@1"], "x-2=acme/b"),
    ],
)
def test_two_sources_of_one_name_are_refused_and_another_name_proposed(texts: list[str], proposal: str) -> None:
    with pytest.raises(MmerError, match=f"would both be called .*; rename one of them, as in --encoder {proposal}$"):
        parse_requests(texts)


@pytest.mark.parametrize(
    "texts",
    [["a=roberta-tiny", "a.tokens=roberta-tiny"], ["a=wav2vec2-tiny", "a.codes=logmel80"], ["ctc.chars=bert-base"]],
)
def test_a_name_that_another_stream_will_have_is_refused(texts: list[str]) -> None:
    with pytest.raises(MmerError, match="name"):
        parse_requests(texts)


@pytest.mark.parametrize("texts", [["bert-base", "bert-base"], ["bert-base@4", "x/y", "bert-base@4"]])
def test_the_same_asked_for_twice_is_refused(texts: list[str]) -> None:
    with pytest.raises(MmerError, match=f"encoder {texts[0]} is requested twice"):
        parse_requests(texts)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("wav2vec-base", "wav2vec2-base"),
        ("Roberta-base", "roberta-base"),
        ("x=wavlm-bas@12", "wavlm-base"),
        ("logmel", "logmel80"),
    ],
)
def test_a_typo_is_answered_with_what_may_be_meant(typo: str, meant: str) -> None:
    with pytest.raises(MmerError, match=f"unknown encoder .*; did you mean .*{meant}"):
        parse_requests([typo])


def test_an_unknown_encoder_is_answered_with_the_known_ones() -> None:
    with pytest.raises(MmerError) as raised:
        parse_requests(["qqq"])
    assert "unknown encoder 'qqq'" in str(raised.value)
    assert all(name in str(raised.value) for name in ENCODERS)


@pytest.mark.parametrize(
    "text", ["", "=", "@", "@3", "=bert-base", "bert-base@", "x=", "x=@3", "x/y=bert-base", "a/b/c", "."]
)
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(MmerError, match="encoder"):
        parse_requests([text])


@pytest.mark.parametrize(
    ("text", "indices", "shape"),
    [
        ("last", (), (8,)),
        ("0", (0,), (8,)),
        ("12", (12,), (8,)),
        ("4,8,12", (4, 8, 12), (3, 8)),
        ("8,4", (8, 4), (2, 8)),
        ("all", tuple(range(13)), (13, 8)),
        ("mean9-12", (9, 10, 11, 12), (8,)),
        ("mean3-3", (3,), (8,)),
    ],
)
def test_layers_are_read(text: str, indices: tuple[int, ...], shape: tuple[int, ...]) -> None:
    choice = parse_layers(text, layers=12, encoder="a")
    assert choice == LayerChoice(text=text, indices=indices, mean=text.startswith("mean"))
    assert choice.row_shape(8) == shape


def test_all_layers_of_an_encoder_of_none_are_still_stacked() -> None:
    assert parse_layers("all", layers=0, encoder="a").row_shape(8) == (1, 8)


@pytest.mark.parametrize(
    "text", ["", "-1", "x", "1-3", "mean", "mean3", "mean4-3", "4,", ",4", "4, 8", "ALL", "1.0", "conv"]
)
def test_layers_that_are_not_understood_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(MmerError, match=r"layers of a must be a number such as 12, .* or a mean such as mean9-12; got"):
        parse_layers(text, layers=12, encoder="a")


def test_features_of_convolutions_are_allowed_where_there_are_some() -> None:
    choice = parse_layers("conv", layers=12, encoder="a", conv=True)
    assert (choice.stream_name("a"), choice.row_shape(512)) == ("a@conv", (512,))
    with pytest.raises(MmerError, match="mean9-12, or `conv`; got 'convs'"):
        parse_layers("convs", layers=12, encoder="a", conv=True)


@pytest.mark.parametrize("text", ["13", "4,13", "mean9-13"])
def test_layers_that_the_encoder_lacks_are_refused(text: str) -> None:
    with pytest.raises(MmerError, match=f"^a has hidden states 0 to 12; got 13 in '{text}'$"):
        parse_layers(text, layers=12, encoder="a")
