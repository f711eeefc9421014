import shlex

import pytest

from cache.errors import MmerError
from cli.extract import featurize
from featurize.encoders.catalog import parse_requests
from fusion.config import configured
from fusion.heads.catalog import config_for
from fusion.protocols.catalog import PROTOCOLS
from fusion.protocols.labels import LABEL_SETS
from fusion.recipes.catalog import RECIPES, Recipe, list_recipes, recipe
from fusion.training.config import TrainConfig

PAPERS = ["gcf2net-iemocap", "gcf2net-meld", "bimodal-iemocap", "bimodal-ravdess", "multab-iemocap", "multab-meld"]
NAMES = [*PAPERS, "jfm-iemocap", "jfm-meld", "lemer-iemocap", "superb-iemocap", "emobox-iemocap", "emobox-ravdess"]
NAMES += ["acoustic-baseline"]
EVERY = [name + end for name in NAMES for end in ("", ":paper")]


def training_of(settings: Recipe) -> TrainConfig:
    return configured(TrainConfig, settings.training, owner="training")


def test_there_is_a_recipe_for_each_paper_and_corpus_and_each_reference_gate() -> None:
    assert list(RECIPES) == NAMES
    assert [settings.name for settings in RECIPES.values()] == NAMES


@pytest.mark.parametrize("name", EVERY)
def test_the_head_and_the_trainer_accept_every_field(name: str) -> None:
    settings = recipe(name)
    assert settings.name == name
    config = config_for(settings.fusion, settings.head)
    assert {field: getattr(config, field) for field in settings.head} == dict(settings.head)
    training = training_of(settings)
    assert {field: getattr(training, field) for field in settings.training} == dict(settings.training)
    assert len(settings.fields) == len(settings.head) + len(settings.training)


@pytest.mark.parametrize("name", NAMES)
def test_protocol_and_labels_exist_and_belong_to_the_corpus(name: str) -> None:
    settings = recipe(name)
    assert settings.protocol in PROTOCOLS
    assert LABEL_SETS[settings.labels].corpus == settings.corpus
    assert settings.training["monitor"] == ("wf1" if settings.corpus == "meld" else "ua")


@pytest.mark.parametrize("name", NAMES)
def test_a_head_reads_only_what_the_recipe_names_or_every_cache_has(name: str) -> None:
    settings = recipe(name)
    config = config_for(settings.fusion, settings.head)
    assert {*config.roles, *config.weight_roles} == set(settings.streams)
    assert {*config.training_roles, *config.prepare_roles} <= {*settings.streams, "chars", "codes", "tokens"}


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_for_featurize_are_understood_and_give_the_streams(name: str) -> None:
    settings = recipe(name)
    with featurize.make_context("mmer-featurize", [settings.corpus, *shlex.split(settings.featurize)]) as context:
        options = context.params
    ending = f"+history{options['history']}" if options["history"] else ""
    computed = {"logmel80"}
    for request in parse_requests(options["encoders"]):
        computed |= {request.name if layer == "last" else f"{request.name}@{layer}" for layer in request.layers}
    assert set(settings.streams.values()) <= computed | {f"{stream}{ending}" for stream in computed}
    assert options["audio_only"] == ("text" not in settings.streams)


def test_streams_are_asked_for_as_on_the_command_line() -> None:
    assert recipe("gcf2net-meld").featurize == "--encoder wav2vec2-base --encoder roberta-base"
    assert recipe("jfm-meld").featurize == "--encoder vit-mel-base --encoder roberta-large@12"
    assert recipe("superb-iemocap").featurize == "--encoder wav2vec2-base@all --audio-only"
    bimodal = "--encoder wav2vec2-base --encoder distilbert-base --view lsa --view cbca:5"
    assert recipe("bimodal-iemocap").featurize == bimodal
    assert recipe("bimodal-ravdess").featurize == "--encoder wav2vec2-base --view lsa --audio-only"
    lemer = "--encoder wav2vec2-base --encoder bert-base --history 10 --max-tokens 150"
    assert recipe("lemer-iemocap").featurize == lemer


def test_gcf2net_has_four_layers_on_iemocap_and_two_on_meld() -> None:  # T000-8
    assert config_for("rescmfa", recipe("gcf2net-iemocap").head).layers == 4  # type: ignore[attr-defined]
    assert config_for("rescmfa", recipe("gcf2net-meld").head).layers == 2  # type: ignore[attr-defined]


def test_loss_weights_are_the_printed_ones() -> None:
    weights = {
        name: dict(config_for(settings.fusion, settings.head).loss_weights) for name, settings in RECIPES.items()
    }
    assert weights["gcf2net-iemocap"] == weights["gcf2net-meld"] == {"ctc": 0.1}
    assert weights["bimodal-iemocap"] == {"cpc": 0.1, "supervised": 0.0, "ecl": 0.1}
    assert weights["bimodal-ravdess"] == {"cpc": 0.0, "supervised": 0.0, "ecl": 0.1}  # B-10
    assert weights["jfm-iemocap"] == weights["jfm-meld"] == {"icl": 1.0}
    assert sorted(weights["lemer-iemocap"].values()) == [0.2, 0.2, 0.5]
    assert not any(weights[name] for name in ("multab-iemocap", "superb-iemocap", "emobox-ravdess"))


def test_a_class_of_lemer_is_described_by_9_words_and_100_frames() -> None:
    described = config_for("label-guided", recipe("lemer-iemocap").head)
    assert (described.words, described.frames) == (9, 100)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("names", "optimizer", "lr", "batch", "epochs"),
    [
        (["gcf2net-iemocap", "gcf2net-meld"], "adam", 1e-5, 2, None),
        (["bimodal-iemocap", "bimodal-ravdess"], "adam", None, 16, 100),
        (["multab-iemocap", "multab-meld"], "adamw", 5e-5, 2, 100),
        (["jfm-iemocap", "jfm-meld"], "adam", 1e-4, 32, None),
        (["lemer-iemocap"], "adam", None, 16, None),
        (["superb-iemocap"], "adam", 1e-4, 32, 241),
        (["emobox-iemocap", "emobox-ravdess"], "adam", 1e-4, 32, 100),
    ],
)
def test_paper_adds_the_printed_optimizer_rate_batch_and_epochs(
    names: list[str], optimizer: str, lr: float | None, batch: int, epochs: int | None
) -> None:
    for name in names:
        plain, printed = training_of(recipe(name)), training_of(recipe(f"{name}:paper"))
        assert (printed.optimizer, printed.batch_size) == (optimizer, batch)
        assert printed.lr == (lr or plain.lr)
        assert (printed.epochs, printed.patience) == ((epochs, epochs) if epochs else (plain.epochs, plain.patience))
        assert printed.weight_decay == (0.01 if optimizer == "adamw" else 0.0)


def test_the_rate_of_emobox_decays_and_all_others_stay() -> None:
    schedules = {name: training_of(recipe(f"{name}:paper")).schedule for name in NAMES}
    assert {name for name, schedule in schedules.items() if schedule != "constant"} == {
        "emobox-iemocap",
        "emobox-ravdess",
        "acoustic-baseline",
    }
    assert training_of(recipe("emobox-ravdess:paper")).warmup * 100 == 10


def test_without_paper_a_head_is_trained_as_all_frozen_heads_are() -> None:
    rates = {1e-3: ["superb-iemocap", "emobox-iemocap", "emobox-ravdess"], 1e-4: ["jfm-iemocap", "jfm-meld"]}
    for name in NAMES[:-1]:
        training = training_of(recipe(name))
        assert (training.optimizer, training.weight_decay, training.clip, training.warmup) == ("adamw", 0.01, 1.0, 0.05)
        assert (training.schedule, training.epochs, training.patience) == ("constant", 100, 10)
        assert training.batch_size == (16 if name.startswith("bimodal") else 32)
        assert training.lr == next((rate for rate, names in rates.items() if name in names), 3e-4)


def test_the_steps_of_superb_are_as_many_epochs_of_our_folds() -> None:
    in_training = 5531 * 4 / 5 * 9 / 10
    assert round(30_000 * 32 / in_training) == recipe("superb-iemocap:paper").training["epochs"]


def test_only_gcf2net_changes_its_head_with_paper() -> None:
    for name in NAMES:
        added = {"ctc_reduction": "sum"} if name.startswith("gcf2net") else {}  # G-10
        assert recipe(f"{name}:paper").head == {**recipe(name).head, **added}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gcf2net-iemocup", "did you mean gcf2net-iemocap"),
        ("lemer-iemocp:paper", "did you mean lemer-iemocap"),
        ("x", "known: gcf2net-iemocap, gcf2net-meld"),
        ("jfm-meld:papre", "did you mean jfm-meld"),
        ("", "known: "),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_ones(name: str, message: str) -> None:
    with pytest.raises(MmerError, match=f"unknown recipe '{name}'; {message}.*each also as NAME:paper"):
        recipe(name)


def test_the_probe_of_emobox_is_its_own() -> None:  # examples/sb of EmoBox at bb22000, with the width of its README
    for name in ("emobox-iemocap", "emobox-ravdess"):
        config = config_for("audio", recipe(name).head)
        shape = {"normalize": True, "hidden": 128, "pooling": "mean", "adapter": False, "dropout": 0.0, "dim": 0}
        assert {field: getattr(config, field) for field in shape} == shape
    assert "hidden" not in recipe("superb-iemocap").head


def test_the_list_has_a_row_for_each_recipe() -> None:
    columns, *cells = list_recipes()
    rows = {row[0]: dict(zip(columns, row, strict=True)) for row in cells}
    assert list(rows) == NAMES
    assert rows["jfm-meld"]["published"] == "WA 65.62, W-F1 64.73 (printed)"
    assert rows["gcf2net-meld"]["published"] == "differences only"
    assert (
        rows["multab-meld"]["NAME:paper sets"]
        == "epochs=100, patience=100, optimizer=adamw, lr=5e-05, audio_lr=5e-05, text_lr=5e-05, batch_size=2"
    )
