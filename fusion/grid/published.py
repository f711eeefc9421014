"""Published variants of a recipe as changes of a grid, and the variants that a grid cannot run."""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from os.path import commonprefix
from shlex import quote

from cache.joined import AnyCache
from fusion.experiment.request import STREAM_AXIS, ExperimentRequest
from fusion.grid.combinations import FieldValues
from fusion.head_config import AUDIO, BOTH, TEXT
from fusion.recipes.catalog import Recipe
from fusion.recipes.matching import HISTORY, SECOND_STAGE, ReadStream
from fusion.recipes.published import Figure


@dataclass(frozen=True, kw_only=True)
class PublishedVariants:
    """The variants that the paper of a recipe published.

    Attributes:
        changes: fields and streams of each variant that a grid of the recipe can run, in the order of the paper.
        notes: one line for each kind of variant that it cannot run, with the command that makes it possible.
    """

    changes: tuple[FieldValues, ...]
    notes: tuple[str, ...] = ()


def published_variants(base: ExperimentRequest, cache: AnyCache | None = None) -> PublishedVariants:
    """Returns the published variants of the recipe of a grid.

    Streams change with the variants: a variant without dialogue history reads the stream without it, and a variant with
    second-stage pre-training reads a stream of such an encoder if the cache has one.

    Args:
        base: experiment that the variants change.
        cache: the cache to read; None if it is not known yet, so that no stream has second-stage pre-training.
    """
    settings = base.settings
    if settings is None:
        return PublishedVariants(changes=())
    changes = []
    for figure in settings.published.figures:
        fields = {**figure.change, **_streams_of(figure, settings, base, cache)}
        if fields and not figure.head:
            changes.append(fields)
    notes = [
        *_sum_notes(settings, base, cache),
        *_second_stage_notes(settings, base, cache),
        *_history_notes(settings, base),
    ]
    return PublishedVariants(changes=tuple(changes), notes=tuple(notes))


def _streams_of(figure: Figure, settings: Recipe, base: ExperimentRequest, cache: AnyCache | None) -> dict[str, str]:
    """Returns the axes of the streams that a variant reads instead of those of the base."""
    axes = {}
    for role, published in settings.streams.items():
        if not _may_read(figure, role):
            continue
        requested = base.streams.get(role, published)
        name = figure.streams.get(role, published)
        if name.partition("+")[0] == published.partition("+")[0]:  # another history of the encoder that the base reads
            name = requested if name == published else _with_history(requested, name)
        if role in figure.second_stage:
            name = _pretrained_again(requested, cache) or name
        elif _pretrained_again(requested, cache) == requested:
            name = published
        if name != requested:
            axes[f"{STREAM_AXIS}{role}"] = name
    return axes


def _may_read(figure: Figure, role: str) -> bool:
    """Checks whether a variant reads a role of a modality."""
    return role not in {AUDIO, TEXT} or figure.change.get("modalities", BOTH) in {BOTH, role}


def _with_history(name: str, other: str) -> str:
    """Returns the name of a stream with the history of another stream.

    Example:
        >>> _with_history("roberta-tiny+history10", "bert-base"), _with_history("roberta-tiny", "bert-base+history10")
        ('roberta-tiny', 'roberta-tiny+history10')
    """
    _, sign, history = other.partition("+")
    return f"{name.partition('+')[0]}{sign}{history}"


def _pretrained_again(name: str, cache: AnyCache | None) -> str:
    """Returns the streams of a cache that are as `name` but pre-trained a second time; empty without such a stream.

    The encoders of several folds are returned as a pattern, of which each fold reads its own stream.
    """
    specs = [] if cache is None else [stream.spec for stream in cache.streams.values()]
    streams = {spec.name: ReadStream.of(spec) for spec in specs if spec.role == AUDIO}
    named = [stream for other, stream in streams.items() if fnmatchcase(other, name)] or [ReadStream.named(name)]
    if all(stream.second_stage for stream in named):
        return name
    again = [other for other, stream in streams.items() if stream.second_stage and stream.fits(named[0])]
    pattern = f"{commonprefix(again)}*"  # noqa: RUF071 - of names, not of paths
    matching = [other for other in streams if fnmatchcase(other, pattern)]
    return pattern if len(again) > 1 and matching == again else (again or [""])[0]


def _sum_notes(settings: Recipe, base: ExperimentRequest, cache: AnyCache | None) -> list[str]:
    """Returns a note on the published score fusion, which is no combination of a grid."""
    start = f"mmer-train --cache {quote(str(cache.path)) if cache else 'FILE'}"
    data = {"labels": base.labels, "protocol": base.protocol}
    shared = "".join(f" --{name} {quote(value)}" for name, value in data.items() if value)
    commands = []
    for modality in (TEXT, AUDIO):
        stream = f" --{modality} {quote(base.streams[modality])}" if modality in base.streams else ""
        options = f"--recipe {quote(settings.name)} --modalities {modality}{stream}{shared}"
        commands.append(f"{start} {options} --out runs/{modality}")
    commands.append(f"{start} --fusion score --run runs/{TEXT} --run runs/{AUDIO}")
    return [
        f"not in this grid: {figure.what}, a sum of two finished runs: {' && '.join(commands)}"
        for figure in settings.published.figures
        if figure.parts
    ]


def _second_stage_notes(settings: Recipe, base: ExperimentRequest, cache: AnyCache | None) -> list[str]:
    """Returns a note for each role whose second-stage pre-training the cache lacks."""
    notes = []
    figures = [figure for figure in settings.published.figures if not figure.head]
    for role in dict.fromkeys(role for figure in figures for role in figure.second_stage):
        name = base.streams.get(role, settings.streams[role])
        if _pretrained_again(name, cache):
            continue
        again = [figure for figure in figures if role in figure.second_stage]
        once = [figure for figure in figures if role not in figure.second_stage]
        twins = {_short(figure): _short(other) for figure in again for other in once if figure.change == other.change}
        named = ", ".join(_short(figure) for figure in again if _short(figure) not in twins)
        equal = "".join(f", and {figure} is the row of {other}" for figure, other in twins.items())
        path = quote(str(cache.path)) if cache else "FILE"
        notes.append(
            f"{SECOND_STAGE}: no stream of {name} has it, so {named} run without it{equal}; pre-train an encoder for "
            f"each fold with mmer-pretrain --cache {path} --encoder {quote(name)}, and add their streams by the "
            "command that it prints"
        )
    return notes


def _history_notes(settings: Recipe, base: ExperimentRequest) -> list[str]:
    """Returns a note for each role whose stream has no dialogue history although that of the recipe has it."""
    return [
        f"{HISTORY}: {base.streams[role]} has none, so the variants of the recipe run without it; choose the stream "
        f"with history by --{role} {_with_history(base.streams[role], published)}"
        for role, published in settings.streams.items()
        if role in base.streams
        and ReadStream.named(published).history
        and not ReadStream.named(base.streams[role]).history
    ]


def _short(figure: Figure) -> str:
    """Returns the number of a row in its paper, or its name."""
    return figure.what.partition(":")[0]
