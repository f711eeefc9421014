"""Catalog of recipes: the settings of published systems (head, training, protocol, labels) and the streams they read.

``NAME`` sets architecture and loss weights as printed, and trains on frozen features
(docs/decisions.md#training-of-frozen-heads). ``NAME:paper`` adds the printed optimizer, learning rate, warm-up, batch
size and epochs, and trains the encoders with the head, as the paper does; values that are not printed stay. If epochs
are printed, all of them are trained, without early stopping. A printed Adam is torch's, without weight decay. An
accumulated batch is one batch for the head and its losses (B-11), in pieces for the encoders.
`fusion.recipes.published` contains the published figures.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cache.errors import MmerError
from cache.near_names import nearest
from fusion.evaluation.classes import CLASSIFICATION
from fusion.head_config import AUDIO, TEXT
from fusion.recipes.published import BASELINE, PUBLISHED, Published

PAPER = ":paper"
ALWAYS_COMPUTED = "logmel80"  # mmer-featurize adds this stream to every cache
COLUMNS = ("recipe", "fusion", "corpus", "protocol", "labels", "published", f"NAME{PAPER} sets")
ADAM: Mapping[str, object] = {"optimizer": "adam", "weight_decay": 0.0}
HUNDRED_EPOCHS: Mapping[str, object] = {"epochs": 100, "patience": 100}
WAV2VEC_ROBERTA = {"audio": "wav2vec2-base", "text": "roberta-base"}
MEL_ROBERTA = {"mel": "logmel80", "patches": "vit-mel-base", "text": "roberta-large@12"}
PROBE: Mapping[str, object] = {"adapter": False, "pooling": "mean", "dropout": 0.0}
EMOBOX = {**PROBE, "normalize": True, "hidden": 128}  # as in its README; its configuration has 256
EMOBOX_TRAINING: Mapping[str, object] = {
    **ADAM,
    **HUNDRED_EPOCHS,
    "lr": 1e-4,  # learning rate and batch size as in its README
    "batch_size": 32,
    "schedule": "linear",  # as in its configuration, which changes the rate per epoch, with a warm-up of ten epochs
    "warmup": 0.1,
}

# downstream/emotion/config.yaml of s3prl at 01b17a8: 30,000 steps of 32 utterances, 241 epochs of a fold of mmer
S3PRL: Mapping[str, object] = {**ADAM, "lr": 1e-4, "batch_size": 32, "epochs": 241, "patience": 241, "monitor": "wa"}


BOTH_ENCODERS = ("audio", "text")


def one_rate(rate: float) -> dict[str, object]:
    """Returns the fields of one learning rate for the head and its encoders."""
    return {"lr": rate, "audio_lr": rate, "text_lr": rate}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one published system on one corpus.

    Attributes:
        name: name for ``--recipe``.
        fusion: name of the head.
        corpus: corpus of the published figures.
        protocol: name of the protocol; `published` describes that of the paper.
        labels: name of the label set.
        head: fields of the configuration of the head.
        training: fields of `fusion.training.config.TrainConfig`.
        paper_head: fields that ``:paper`` adds to `head`.
        paper_training: fields that ``:paper`` adds to `training`.
        streams: role -> stream to read, unless the user names another.
        options: options that ``mmer-featurize`` needs in addition to the encoders.
        tune: values of ``--tune``, if encoders learn.
        paper_tune: values of ``--tune`` of the paper, which ``:paper`` takes.
    """

    name: str
    fusion: str
    corpus: str
    protocol: str
    labels: str
    head: Mapping[str, object]
    training: Mapping[str, object]
    paper_head: Mapping[str, object] = field(default_factory=dict)
    paper_training: Mapping[str, object]
    streams: Mapping[str, str]
    options: str = ""
    tune: tuple[str, ...] = ()
    paper_tune: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, object]:
        """The fields of the head and of the training."""
        return {**self.head, **self.training}

    @property
    def published(self) -> Published:
        """The published figures and their protocol."""
        return PUBLISHED[self.name.removesuffix(PAPER)]

    @property
    def featurize(self) -> str:
        """The arguments of ``mmer-featurize`` that compute the streams."""
        encoders = [name.partition("+")[0] for name in self.streams.values() if name != ALWAYS_COMPUTED]
        encoders += [f"{self.streams[role]}@conv" for role in self.tune if role == AUDIO]
        options = [self.options, "" if TEXT in self.streams else "--audio-only"]
        return " ".join(filter(None, [*(f"--encoder {name}" for name in encoders), *options]))

    def as_printed(self) -> "Recipe":
        """Returns the recipe ``NAME:paper``, with the printed training."""
        head, training = {**self.head, **self.paper_head}, {**self.training, **self.paper_training}
        return replace(self, name=f"{self.name}{PAPER}", head=head, training=training, tune=self.paper_tune)


RECIPES: Mapping[str, Recipe] = {
    "gcf2net-iemocap": Recipe(
        name="gcf2net-iemocap",
        fusion="rescmfa",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={"layers": 4, "alpha": 0.1},
        training={"monitor": "ua"},
        paper_head={"ctc_reduction": "sum"},  # G-10
        paper_training={**ADAM, **one_rate(1e-5), "batch_size": 2},
        paper_tune=BOTH_ENCODERS,
        streams=WAV2VEC_ROBERTA,
    ),
    "gcf2net-meld": Recipe(
        name="gcf2net-meld",
        fusion="rescmfa",
        corpus="meld",
        protocol="official",
        labels="meld7",
        head={"layers": 2, "alpha": 0.1},
        training={"monitor": "wf1"},
        paper_head={"ctc_reduction": "sum"},
        paper_training={**ADAM, **one_rate(1e-5), "batch_size": 2},
        paper_tune=BOTH_ENCODERS,
        streams=WAV2VEC_ROBERTA,
    ),
    "bimodal-iemocap": Recipe(
        name="bimodal-iemocap",
        fusion="bimodal",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={"tasks": "cpc+augmented", "alpha": 0.1, "beta": 0.1},
        training={"monitor": "ua", "batch_size": 16},  # B-11
        paper_training={**ADAM, **HUNDRED_EPOCHS, "batch_size": 16, "accumulate": 4},
        paper_tune=BOTH_ENCODERS,
        streams={"audio": "wav2vec2-base", "text": "distilbert-base"},
        options="--view lsa --view cbca:5",
    ),
    "bimodal-ravdess": Recipe(
        name="bimodal-ravdess",
        fusion="bimodal",
        corpus="ravdess",
        protocol="actor5",
        labels="ravdess8",
        head={"tasks": "augmented", "alpha": 0.1, "beta": 0.1, "modalities": "audio"},  # B-10: without CPC
        training={"monitor": "ua", "batch_size": 16},
        paper_training={**ADAM, **HUNDRED_EPOCHS, "batch_size": 16, "accumulate": 4},
        paper_tune=("audio",),
        streams={"audio": "wav2vec2-base"},
        options="--view lsa",
    ),
    "multab-iemocap": Recipe(
        name="multab-iemocap",
        fusion="tab",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={"heads": 8, "layers": 2, "dropout": 0.1},
        training={"monitor": "ua"},
        paper_training={**HUNDRED_EPOCHS, "optimizer": "adamw", **one_rate(5e-5), "batch_size": 2},
        paper_tune=BOTH_ENCODERS,
        streams=WAV2VEC_ROBERTA,
    ),
    "multab-meld": Recipe(
        name="multab-meld",
        fusion="tab",
        corpus="meld",
        protocol="official",
        labels="meld7",
        head={"heads": 8, "layers": 2, "dropout": 0.1},
        training={"monitor": "wf1"},
        paper_training={**HUNDRED_EPOCHS, "optimizer": "adamw", **one_rate(5e-5), "batch_size": 2},
        paper_tune=BOTH_ENCODERS,
        streams=WAV2VEC_ROBERTA,
    ),
    "jfm-iemocap": Recipe(
        name="jfm-iemocap",
        fusion="jfm",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={"blocks": 2, "joint_length": 4, "extractor_layers": 2, "extractor_heads": 8},
        training={"monitor": "ua", "lr": 1e-4},  # lower than the default: pre-trained layers are trained
        paper_training={**ADAM, **one_rate(1e-4), "batch_size": 32},
        paper_tune=("text",),
        streams=MEL_ROBERTA,
    ),
    "jfm-meld": Recipe(
        name="jfm-meld",
        fusion="jfm",
        corpus="meld",
        protocol="official",
        labels="meld7",
        head={"blocks": 2, "joint_length": 4, "extractor_layers": 2, "extractor_heads": 8},
        training={"monitor": "wf1", "lr": 1e-4},
        paper_training={**ADAM, **one_rate(1e-4), "batch_size": 32},
        paper_tune=("text",),
        streams=MEL_ROBERTA,
    ),
    "lemer-iemocap": Recipe(
        name="lemer-iemocap",
        fusion="label-guided",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={"words": 9, "frames": 100, "mu_m": 1.0, "mu_c": 0.5, "mu_text": 0.2, "mu_speech": 0.2},
        training={"monitor": "ua"},
        paper_training={**ADAM, "audio_lr": 1e-6, "text_lr": 5e-6, "batch_size": 16, "warmup_steps": 8000},
        paper_tune=BOTH_ENCODERS,
        streams={"audio": "wav2vec2-base", "text": "bert-base+history10"},
        options="--history 10 --max-tokens 150",
    ),
    "superb-iemocap": Recipe(
        name="superb-iemocap",
        fusion="audio",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={**PROBE, "dim": 256},  # the projector of s3prl
        # one linear layer takes the greatest rate of the range (docs/decisions.md#training-of-frozen-heads)
        training={"monitor": "ua", "lr": 1e-3},
        paper_training=S3PRL,
        streams={"audio": "wav2vec2-base@all"},
    ),
    "emobox-iemocap": Recipe(
        name="emobox-iemocap",
        fusion="audio",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head=EMOBOX,
        training={"monitor": "ua", "lr": 1e-3},
        paper_training=EMOBOX_TRAINING,
        streams={"audio": "wav2vec2-base"},
    ),
    "emobox-ravdess": Recipe(
        name="emobox-ravdess",
        fusion="audio",
        corpus="ravdess",
        protocol="actor6",
        labels="ravdess8",
        head=EMOBOX,
        training={"monitor": "ua", "lr": 1e-3},
        paper_training=EMOBOX_TRAINING,
        streams={"audio": "wav2vec2-base"},
    ),
    "acoustic-baseline": Recipe(
        name="acoustic-baseline",
        fusion="audio",
        corpus="ravdess",
        protocol="actor6",
        labels="ravdess8",
        head={
            "standardize": True,
            "dim": 128,
            "adapter": True,
            "pooling": "max",
            "dropout": 0.3,
        },
        training={
            "monitor": "ua",
            "lr": 3e-3,
            "schedule": "cosine",
            "epochs": 30,
            "patience": 30,
            "label_smoothing": 0.1,
        },
        paper_training={},
        streams={"audio": "mfcc39"},
    ),
}


def recipe(name: str) -> Recipe:
    """Looks a recipe up by ``NAME`` or ``NAME:paper``.

    Raises:
        MmerError: if the recipe is unknown.

    Example:
        >>> recipe("multab-meld:paper").training["lr"]
        5e-05
    """
    base = name.removesuffix(PAPER)
    if base not in RECIPES:
        raise MmerError(f"unknown recipe {name!r}; {nearest(base, RECIPES)} (each also as NAME{PAPER})")
    return RECIPES[base].as_printed() if name.endswith(PAPER) else RECIPES[base]


def list_recipes() -> list[tuple[str, ...]]:
    """Returns the names of the columns, followed by a row for each recipe."""
    rows = [
        (
            settings.name,
            settings.fusion,
            settings.corpus,
            settings.protocol,
            settings.labels,
            _headline(settings.published),
            ", ".join(f"{name}={value}" for name, value in {**settings.paper_head, **settings.paper_training}.items()),
        )
        for settings in RECIPES.values()
    ]
    return [COLUMNS, *rows]


def _headline(published: Published) -> str:
    """Returns the scores of the system itself with their status."""
    if not published.figures:
        return "none" if published.paper == BASELINE else "differences only"
    first = published.figures[0]
    scores = [
        f"{score.title} {score.text(value)}"
        for score in CLASSIFICATION.scores
        if (value := first.scores.get(score.name)) is not None
    ]
    return f"{', '.join(scores)} ({first.status})"
