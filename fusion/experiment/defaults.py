"""Defaults that depend on the streams of a run: of hand-made features, of an encoder, of text with history.

They replace the defaults of a head and of its training where a run names neither a recipe nor encoders that learn. The
values come from development subsets of RAVDESS and of the demo (benchmarks/README.md); the reasons are in
docs/decisions.md#defaults-by-stream. They are resolved when a run is planned, so that a run folder records values and
never ``auto``. The classes of the fields keep the defaults that older runs and grids were recorded with.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields

from cache.joined import AnyCache
from cache.stream import StreamSpec
from fusion.head_config import AUDIO, OWN, TEXT, TOKENS, HeadConfig
from fusion.heads.catalog import HEADS

AUTO = "auto"
HISTORY_POOL = "history_pool"
ACOUSTIC = frozenset({"logmel80", "mfcc39"})  # sources of hand-made features, as in the catalog of encoders
MODALITIES_FIELD = "modalities"
BY_CACHE = frozenset({"probe"})  # heads that read the modalities that a cache has
PAPER_HEADS = frozenset({"label-guided"})  # keep what their paper prints; their field can be set


@dataclass(frozen=True, kw_only=True)
class KindDefaults:
    """The defaults of the heads that read one kind of stream.

    Attributes:
        words: description of the kind, for lists of fields.
        every: defaults of every head that has the field and accepts the value.
        heads: head -> its own defaults, in addition.
    """

    words: str
    every: Mapping[str, object] = field(default_factory=dict)
    heads: Mapping[str, Mapping[str, object]] = field(default_factory=dict)

    def of(self, fusion: str) -> dict[str, object]:
        """Returns the defaults of a head of the catalog; empty for another head."""
        return {**(self.every if fusion in STANDARDIZED else {}), **self.heads.get(fusion, {})}


# Heads that may standardize rows: the probe scales pooled vectors, label embeddings need the features of the encoder.
STANDARDIZED = frozenset({"audio", "text", "concat", "score", "cross-attention", "tab", "rescmfa", "bimodal"})
ANNEALED: Mapping[str, object] = {"schedule": "cosine", "epochs": 30, "patience": 30, "label_smoothing": 0.1}
LINEAR = {**ANNEALED, "pooling": "meanstd", "standardize": True, "lr": 1e-2}
# of rows too poor for a linear model; widths and rates as those of the tables of RAVDESS in benchmarks/README.md
NONLINEAR = {**ANNEALED, "dim": 128, "adapter": True, "pooling": "max", "dropout": 0.3, "lr": 3e-3}
HANDMADE = KindDefaults(
    words="hand-made features", every={"standardize": True}, heads={"audio": NONLINEAR, "text": NONLINEAR}
)
ENCODED = KindDefaults(words="features of an encoder", heads={"audio": LINEAR, "text": LINEAR})
KINDS = (HANDMADE, ENCODED)

# Field -> fields that exclude it: where a run sets one of these, the default by stream is not taken.
EXCLUDED_BY: Mapping[str, tuple[str, ...]] = {
    "standardize": ("normalize",),
    "label_smoothing": ("focal_gamma",),
}


def kind_of(spec: StreamSpec) -> KindDefaults:
    """Returns the kind of a stream, by what computed it."""
    return HANDMADE if spec.source in ACOUSTIC else ENCODED


def stream_defaults(
    fusion: str,
    config: HeadConfig,
    cache: AnyCache,
    streams: Mapping[str, str],
    given: Collection[str],
    *,
    classes: bool,
) -> dict[str, object]:
    """Returns the defaults of a head for the streams that it reads.

    Args:
        fusion: name of the head.
        config: configuration of the head without them.
        cache: open cache.
        streams: role -> selected stream.
        given: fields that the run sets.
        classes: the task has classes, which can be smoothed.
    """
    if fusion not in HEADS:
        return {}
    leader = next((role for role in (AUDIO, TEXT) if role in streams), "")
    found = kind_of(cache.stream(streams[leader]).spec).of(fusion) if leader else {}
    if not classes:
        found.pop("label_smoothing", None)
    if _pools_history(fusion, config, cache, streams):
        found[HISTORY_POOL] = OWN
    set_off = [name for name, others in EXCLUDED_BY.items() if any(other in given for other in others)]
    return {name: value for name, value in found.items() if name not in {*given, *set_off}}


def only_modality(fusion: str, cache: AnyCache, given: Collection[str]) -> dict[str, object]:
    """Returns the field of a head that reads the modalities of a cache, if the cache has one; empty otherwise.

    Args:
        fusion: name of the head.
        cache: open cache.
        given: fields that the run sets.
    """
    held = {stream.spec.role for stream in cache.streams.values()} & {AUDIO, TEXT}
    if fusion not in BY_CACHE or MODALITIES_FIELD in given or len(held) != 1:
        return {}
    return {MODALITIES_FIELD: held.pop()}


def automatic(fusion: str) -> dict[str, str]:
    """Returns the fields of a head whose defaults depend on the streams, with a description of the values.

    Example:
        >>> automatic("tab")
        {'standardize': 'true for hand-made features'}
    """
    words: dict[str, dict[str, list[str]]] = {}
    for kind in KINDS:
        for name, value in kind.of(fusion).items():
            words.setdefault(name, {}).setdefault(word_of(value), []).append(kind.words)
    described = {
        name: "; ".join(f"{value} for {' and '.join(kinds)}" for value, kinds in values.items())
        for name, values in words.items()
    }
    if fusion in BY_CACHE:
        described[MODALITIES_FIELD] = "the only modality of a cache with one"
    spec = HEADS.get(fusion)
    if spec is None or HISTORY_POOL not in {field.name for field in fields(spec.config)}:
        return described
    if fusion not in PAPER_HEADS and spec.fixed.get("modalities") != AUDIO:
        described[HISTORY_POOL] = f"{OWN} for text with history"
    return described


def without_auto(fusion: str, values: Mapping[str, object]) -> dict[str, object]:
    """Removes the fields that a run leaves to the streams by the value ``auto``."""
    free = automatic(fusion)
    return {name: value for name, value in values.items() if not (value == AUTO and name in free)}


def _pools_history(fusion: str, config: HeadConfig, cache: AnyCache, streams: Mapping[str, str]) -> bool:
    """Checks whether a head pools text with history whose tokens are cached."""
    if fusion in PAPER_HEADS or TEXT not in streams or not hasattr(config, HISTORY_POOL):
        return False
    spec = cache.stream(streams[TEXT]).spec
    return bool(spec.preprocessing.get("history")) and f"{spec.encoder}.{TOKENS}" in cache.streams


def word_of(value: object) -> str:
    """Returns a value of a field as it is written on the command line."""
    return str(value).lower() if isinstance(value, bool) else str(value)
