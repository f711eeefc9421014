import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache.errors import MmerError
from cache.joined import AnyCache, open_cache
from cache.layout import StreamPlan
from cache.stream import StreamSpec
from fusion.experiment.streams import StreamSelection, head_inputs, select_streams
from fusion.heads.catalog import HEADS, config_for
from tests.support.runs import plan, write_cache
from tests.support.toys import create, utterances_named


def spec(name: str, role: str, **changes: Any) -> StreamSpec:
    return StreamSpec(name=name, role=role, source="a/b", shape=(4,), dtype="float16", **changes)


def cache_of(folder: Path, *specs: StreamSpec, **weights: Any) -> AnyCache:
    plans = [StreamPlan(spec=item, lengths=np.array([2]), failures={}) for item in specs]
    create(folder / "a.h5", utterances_named("a"), plans, **weights)
    return open_cache(folder / "a.h5")


def chosen(cache: AnyCache, fusion: str, requested: dict[str, str] | None = None, **values: object) -> StreamSelection:
    return select_streams(cache, config_for(fusion, values), requested or {})


def roles_of(fusion: str) -> set[str]:
    config = config_for(fusion, {})
    return {*config.roles, *config.training_roles, *config.prepare_roles, *config.weight_roles}


@pytest.mark.parametrize("fusion", HEADS)
def test_every_head_finds_all_that_it_reads(trainable: Path, fusion: str) -> None:
    cache, config = open_cache(trainable), config_for(fusion, {})
    found = select_streams(cache, config, {})
    read = {*config.roles, *config.training_roles, *config.prepare_roles}
    assert set(found.streams) == read
    assert set(found.starts) == set(config.weight_roles) - read
    assert {*found.required, *found.training_only} == set(found.streams.values())
    inputs = head_inputs(cache, found, ("a", "b"))
    assert set(inputs.shapes) == {*read, *found.starts} == set(inputs.layers)


def test_the_last_layer_without_history_is_preferred(tmp_path: Path) -> None:
    history = {"history": 10}
    cache = cache_of(
        tmp_path,
        spec("words@4", "text", layers="4"),
        spec("words+history10", "text", preprocessing=history),
        spec("words", "text"),
        spec("words~cbca", "text"),
    )
    assert chosen(cache, "text").streams == {"text": "words"}


def test_a_lone_stream_with_history_is_taken(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, spec("words+history10", "text", preprocessing={"history": 10}))
    assert chosen(cache, "text").required == ["words+history10"]


def test_two_streams_that_fit_alike_are_an_error_that_names_the_flag(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, spec("voice", "audio"), spec("other", "audio"))
    with pytest.raises(MmerError, match=r"has 2 streams for audio: other, voice; choose one with --audio NAME"):
        chosen(cache, "audio")
    assert chosen(cache, "audio", {"audio": "other"}).streams == {"audio": "other"}


def test_codes_and_tokens_follow_the_encoder_that_is_read(tmp_path: Path) -> None:
    cache = cache_of(
        tmp_path,
        spec("voice", "audio"),
        spec("other", "audio"),
        spec("voice.codes", "codes"),
        spec("words", "text"),
        spec("words.tokens", "tokens"),
    )
    found = chosen(cache, "label-guided", {"audio": "voice"})
    assert (found.streams["codes"], found.streams["tokens"]) == ("voice.codes", "words.tokens")
    with pytest.raises(
        MmerError, match=r"no stream for codes.*wav2vec2-base, and choose that encoder with --audio NAME"
    ):
        chosen(cache, "label-guided", {"audio": "other"})


@pytest.mark.parametrize(
    ("fusion", "gone", "encoder"),
    [
        ("audio", "voice", "wav2vec2-base"),
        ("text", "words@4", "roberta-base"),
        ("rescmfa", "ctc.chars", "roberta-base"),
        ("jfm", "logmel80", "logmel80"),
        ("jfm", "vit", "vit-mel-base"),
        ("jfm", "words@4", "roberta-large@12"),
    ],
)
def test_a_missing_stream_is_told_with_the_command_that_adds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fusion: str, gone: str, encoder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b").mkdir()
    path = write_cache(tmp_path / "a b.h5", without=[gone], roles=roles_of(fusion))
    add = f"mmer-featurize toy --root 'a b' --cache '{path}' --encoder {encoder}"
    with pytest.raises(MmerError, match=re.escape(f"; add it with {add}")):
        chosen(open_cache(path), fusion)


@pytest.mark.parametrize(("gone", "other"), [("words@4", "audio"), ("voice", "text")])
def test_a_head_of_both_modalities_may_read_the_one_that_is_there(tmp_path: Path, gone: str, other: str) -> None:
    path = write_cache(tmp_path / "a.h5", without=[gone], roles=["audio", "text"])
    with pytest.raises(MmerError, match=f", or read {other} alone by --modalities {other}$"):
        chosen(open_cache(path), "probe")


def test_the_demo_is_told_of_built_in_encoders(tmp_path: Path) -> None:
    path = write_cache(tmp_path / "a.h5", roles=["text"], corpus={"name": "demo", "root": "cache/demo"})
    with pytest.raises(MmerError, match=r"--encoder wav2vec2-tiny$"):
        chosen(open_cache(path), "audio")


def test_a_named_stream_that_is_missing_is_told_with_its_neighbours(trainable: Path) -> None:
    with pytest.raises(MmerError, match=r"no stream vioce; did you mean voice[?]$"):
        chosen(open_cache(trainable), "audio", {"audio": "vioce"})


@pytest.mark.parametrize(
    ("role", "name", "options"),
    [
        ("audio.view", "voice~lsa", "--encoder voice --view lsa"),
        ("text.view", "words@4~cbca3", "--encoder words@4 --view cbca:3"),
    ],
)
def test_a_named_view_that_is_missing_is_told_with_the_options_that_add_it(
    trainable: Path, role: str, name: str, options: str
) -> None:
    with pytest.raises(MmerError, match=rf"no stream {name}; .*or add it with .* {options}$"):
        chosen(open_cache(trainable), "bimodal", {role: name})


@pytest.mark.parametrize(
    ("role", "name"), [("audio", "words@4"), ("text", "voice"), ("audio", "voice.codes"), ("text", "ctc.chars")]
)
def test_a_stream_of_another_kind_cannot_be_read(trainable: Path, role: str, name: str) -> None:
    with pytest.raises(MmerError, match=rf"stream {name} holds \w+ and cannot be read as {role}"):
        chosen(open_cache(trainable), "concat", {role: name})


def test_audio_may_be_any_numbers_from_speech(trainable: Path) -> None:
    assert chosen(open_cache(trainable), "bimodal", {"audio": "logmel80"}, modalities="audio").required == ["logmel80"]


def test_a_role_that_the_head_does_not_read_cannot_be_named(trainable: Path) -> None:
    with pytest.raises(MmerError, match=r"does not read text, for which a stream is given; it reads audio$"):
        chosen(open_cache(trainable), "audio", {"text": "words@4"})


def test_views_are_read_where_the_cache_has_them(tmp_path: Path) -> None:
    cache = cache_of(tmp_path, spec("voice", "audio"), spec("voice~lsa", "audio"), spec("words", "text"))
    found = chosen(cache, "bimodal")
    assert found.streams["audio.view"] == "voice~lsa"
    assert "text.view" not in found.streams
    assert found.training_only == []


def test_all_views_of_a_stream_are_alternatives_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    texts = [spec(f"words~cbca{number}", "text") for number in (10, 1, 2, 9)]
    other = [spec("others", "text"), spec("others~cbca1", "text")]
    cache = cache_of(tmp_path, spec("voice", "audio"), spec("words", "text"), *texts, *other)
    found = chosen(cache, "bimodal", {"text": "words"})
    views = {role: name for role, name in found.streams.items() if "view" in role}
    assert views == {
        "text.view": "words~cbca1",
        "text.view.2": "words~cbca2",
        "text.view.3": "words~cbca9",
        "text.view.4": "words~cbca10",
    }
    assert set(found.indirect) == set(views.values())
    assert head_inputs(cache, found, ("a",)).shapes["text.view.4"] == (4,)
    named = chosen(cache, "bimodal", {"text": "words", "text.view": "words~cbca9"})
    assert [name for name in named.streams.values() if "~" in name] == ["words~cbca9"]


def test_views_of_several_forms_are_an_error_that_names_the_flag(tmp_path: Path) -> None:
    views = [spec("voice~lsa", "audio"), replace(spec("voice~loud", "audio"), dtype="float32")]
    cache = cache_of(tmp_path, spec("voice", "audio"), spec("words", "text"), *views)
    with pytest.raises(MmerError, match=r"voice~loud, voice~lsa; their rows differ .* with --stream audio.view=NAME"):
        chosen(cache, "bimodal")


def test_a_head_that_needs_views_is_told_the_command_that_adds_them(tmp_path: Path) -> None:
    history = {"history": 10}
    cache = cache_of(tmp_path, spec("voice", "audio"), spec("words+history10", "text", preprocessing=history))
    command = (
        r"--encoder voice --encoder words --view lsa --view cbca:5 --history 10, or pass --set tasks=cpc.supervised"
    )
    with pytest.raises(MmerError, match=rf"no augmented views of voice or words.history10, .*{command}"):
        chosen(cache, "bimodal", tasks="cpc+augmented")
    with pytest.raises(MmerError, match=r"no augmented views of voice, .* --encoder voice --view lsa, or pass"):
        chosen(cache, "bimodal", tasks="augmented", modalities="audio")
    assert set(chosen(cache, "bimodal", tasks="cpc+supervised").streams) == {"audio", "text"}


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """What a bimodal head reads, with and without views of the voices."""
    folder, roles = tmp_path_factory.mktemp("views"), [*roles_of("bimodal"), "audio.view"]
    return {views: write_cache(folder / f"{views}.h5", views=views, roles=roles) for views in (False, True)}


@pytest.mark.parametrize(
    ("views", "values", "tasks", "roles"),
    [
        (True, {}, "auto", {"audio", "text", "audio.view"}),
        (False, {}, "cpc+supervised", {"audio", "text"}),
        (True, {"augmentation": False}, "cpc+supervised", {"audio", "text"}),
        (True, {"tasks": "cpc"}, "cpc", {"audio", "text"}),
        (True, {"modalities": "audio"}, "auto", {"audio", "audio.view"}),
        (False, {"modalities": "audio"}, "supervised", {"audio"}),
    ],
)
def test_a_plan_says_which_tasks_run(
    caches: dict[bool, Path], views: bool, values: dict[str, object], tasks: str, roles: set[str]
) -> None:
    """B-13: on every cache, never silently nothing; the run is known by what it does."""
    planned = plan(caches[views], "bimodal", values)
    assert planned.identity["head"]["tasks"] == tasks
    assert set(planned.selection.streams) == set(planned.identity["streams"]) == roles


def test_a_head_starts_from_the_encoder_that_is_named(tmp_path: Path, trainable: Path) -> None:
    weights = open_cache(trainable).all_weights()
    streams = [spec("logmel80", "mel"), spec("words@4", "text", layers="4"), spec("vit", "patches")]
    cache = cache_of(
        tmp_path, *streams, replace(streams[2], name="vit2"), vit=weights["vit"], vit2=weights["vit"],
        words=weights["words"],
    )  # fmt: skip
    with pytest.raises(MmerError, match=r"2 streams for patches: vit, vit2; choose one with --stream patches=NAME"):
        chosen(cache, "jfm")
    found = chosen(cache, "jfm", {"patches": "vit2"})
    assert found.starts == {"patches": "vit2"}
    assert set(head_inputs(cache, found, ("a",)).weights) == {"patches", "text"}


@pytest.mark.parametrize(("fusion", "role"), [("jfm", "patches"), ("jfm", "mel"), ("bimodal", "audio.view")])
def test_no_encoder_that_has_seen_test_speakers_gets_in_by_a_side_door(tmp_path: Path, fusion: str, role: str) -> None:
    seen = {"corpus": "toy", "speakers": ["2M"]}
    path = write_cache(tmp_path / "a.h5", trained=role, trained_on=seen, views=True, roles={*roles_of(fusion), role})
    with pytest.raises(MmerError, match=r"has seen speaker 2M of test; choose another encoder, or pass --allow-leak"):
        plan(path, fusion)
    allowed = plan(path, fusion, allow_leak=True)
    assert not allowed.frozen
    assert any("has seen" in note for note in allowed.notes)
