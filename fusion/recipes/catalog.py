"""The papers' own settings: which head, how it is trained and what it reads.

``NAME`` sets architecture and loss weights as printed, and trains on frozen features as systems.md 1.6 does.
``NAME:paper`` adds the printed optimizer, rate, batch and epochs, which were meant for training end to end; what is not
printed stays. Printed epochs are all trained, without early stopping; a printed Adam is torch's, without weight decay;
a batch that was accumulated is one batch here (B-11). What was published stands in `fusion.recipes.published`.

One recipe: the settings of a published system, and the streams that it reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from cache.errors import MmerError
from fusion.config import nearest
from fusion.head import TEXT
from fusion.recipes.published import PUBLISHED, Published

PAPER = ":paper"
ALWAYS_MADE = "logmel80"  # mmer-featurize adds it to every cache
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
    "lr": 1e-4,  # this and the batch as in its README
    "batch_size": 32,
    "schedule": "linear",  # as in its configuration, which changes the rate by the epoch, upwards for ten of them
    "warmup": 0.1,
}

# downstream/emotion/config.yaml of s3prl at 01b17a8: 30,000 steps of 32 utterances, 241 epochs of a fold of ours
S3PRL: Mapping[str, object] = {**ADAM, "lr": 1e-4, "batch_size": 32, "epochs": 241, "patience": 241, "monitor": "wa"}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One system on one corpus.

    Attributes:
        name: what ``--recipe`` calls it.
        fusion: name of the head.
        corpus: the corpus it was published on.
        protocol: the protocol to take; the paper's own is told in words by `published`.
        labels: the label set to take.
        head: fields of the head's configuration.
        training: fields of `fusion.training.config.TrainConfig`.
        paper_head: what ``:paper`` adds to `head`.
        paper_training: what ``:paper`` adds to `training`.
        streams: role -> stream to read for it, unless the user names another.
        options: what ``mmer-featurize`` needs beside the encoders.
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

    @property
    def fields(self) -> dict[str, object]:
        """The fields of the head and of the training."""
        return {**self.head, **self.training}

    @property
    def published(self) -> Published:
        """What was published, and how it was measured."""
        return PUBLISHED[self.name.removesuffix(PAPER)]

    @property
    def featurize(self) -> str:
        """The arguments by which ``mmer-featurize`` computes the streams."""
        encoders = [name.partition("+")[0] for name in self.streams.values() if name != ALWAYS_MADE]
        options = self.options if TEXT in self.streams else "--audio-only"
        return " ".join([*(f"--encoder {name}" for name in encoders), options]).rstrip()

    def as_printed(self) -> "Recipe":
        """Gives the recipe with the paper's own training."""
        head, training = {**self.head, **self.paper_head}, {**self.training, **self.paper_training}
        return replace(self, name=f"{self.name}{PAPER}", head=head, training=training)


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
        paper_training={**ADAM, "lr": 1e-5, "batch_size": 2},
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
        paper_training={**ADAM, "lr": 1e-5, "batch_size": 2},
        streams=WAV2VEC_ROBERTA,
    ),
    "bimodal-iemocap": Recipe(
        name="bimodal-iemocap",
        fusion="bimodal",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={"alpha": 0.1, "beta": 0.1},
        training={"monitor": "ua", "batch_size": 16},  # B-11
        paper_training={**ADAM, **HUNDRED_EPOCHS, "batch_size": 16},
        streams={"audio": "wav2vec2-base", "text": "distilbert-base"},
    ),
    "bimodal-ravdess": Recipe(
        name="bimodal-ravdess",
        fusion="bimodal",
        corpus="ravdess",
        protocol="actor5",
        labels="ravdess8",
        head={"alpha": 0.1, "beta": 0.1, "modalities": "audio"},
        training={"monitor": "ua", "batch_size": 16},
        paper_training={**ADAM, **HUNDRED_EPOCHS, "batch_size": 16},
        streams={"audio": "wav2vec2-base"},
    ),
    "multab-iemocap": Recipe(
        name="multab-iemocap",
        fusion="tab",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={"heads": 8, "layers": 2, "dropout": 0.1},
        training={"monitor": "ua"},
        paper_training={**HUNDRED_EPOCHS, "optimizer": "adamw", "lr": 5e-5, "batch_size": 2},
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
        paper_training={**HUNDRED_EPOCHS, "optimizer": "adamw", "lr": 5e-5, "batch_size": 2},
        streams=WAV2VEC_ROBERTA,
    ),
    "jfm-iemocap": Recipe(
        name="jfm-iemocap",
        fusion="jfm",
        corpus="iemocap",
        protocol="session",
        labels="iemocap4",
        head={"blocks": 2, "joint_length": 4, "extractor_layers": 2, "extractor_heads": 8},
        training={"monitor": "ua", "lr": 1e-4},  # it trains pre-trained layers
        paper_training={**ADAM, "lr": 1e-4, "batch_size": 32},
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
        paper_training={**ADAM, "lr": 1e-4, "batch_size": 32},
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
        paper_training={**ADAM, "batch_size": 16},
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
        training={"monitor": "ua", "lr": 1e-3},  # one linear layer takes the greatest rate of systems.md 1.6
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
}


def recipe(name: str) -> Recipe:
    """Looks a recipe up by ``NAME`` or ``NAME:paper``.

    Raises:
        MmerError: if there is none of that name.

    Example:
        >>> recipe("multab-meld:paper").training["lr"]
        5e-05
    """
    base = name.removesuffix(PAPER)
    if base not in RECIPES:
        raise MmerError(f"unknown recipe {name!r}; {nearest(base, RECIPES)} (each also as NAME{PAPER})")
    return RECIPES[base].as_printed() if name.endswith(PAPER) else RECIPES[base]


def list_recipes() -> list[tuple[str, ...]]:
    """Gives the names of the columns and a row for each recipe."""
    rows = [
        (one.name, one.fusion, one.corpus, one.protocol, one.labels, _headline(one.published), _settings(one))
        for one in RECIPES.values()
    ]
    return [COLUMNS, *rows]


def _headline(published: Published) -> str:
    if not published.figures:
        return "differences only"
    first = published.figures[0]
    return f"{', '.join(f'{name} {score:.4f}' for name, score in first.scores.items())} ({first.status})"


def _settings(one: Recipe) -> str:
    return ", ".join(f"{name}={value}" for name, value in {**one.paper_head, **one.paper_training}.items())
