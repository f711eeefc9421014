"""One recipe: the settings of a published system, and the streams that it reads."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.figures import Published
from fusion.head import AUDIO, TEXT
from fusion.published import PUBLISHED
from fusion.remedy import command

PAPER = ":paper"
ALWAYS_MADE = "logmel80"  # mmer-featurize adds it to every cache


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
        training: fields of `fusion.train_config.TrainConfig`.
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


def streams_of(recipe: Recipe, cache: AnyCache, roles: Collection[str], asked: Mapping[str, str]) -> dict[str, str]:
    """Gives the stream to read for each role: the one the user names, else the recipe's.

    Args:
        recipe: of the run.
        cache: an open cache.
        roles: those that the head reads, or whose encoders it starts from.
        asked: role -> stream, as named by the user.

    Raises:
        MmerError: if the cache lacks one of the recipe's, with the command that adds it.
    """
    wanted = {role: name for role, name in recipe.streams.items() if role in roles and role not in asked}
    missing = {role: name for role, name in wanted.items() if name not in cache.streams}
    if missing:
        raise MmerError(
            f"{cache.path} lacks {', '.join(missing.values())}, which recipe {recipe.name} reads; add it by "
            f"{command(cache, recipe.featurize)}, or name another stream by {' and '.join(map(_flag, missing))}"
        )
    return {**wanted, **asked}


def _flag(role: str) -> str:
    return f"--{role} NAME" if role in {AUDIO, TEXT} else f"--stream {role}=NAME"
