"""Options that say what is trained on what, and the experiment that they ask for."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from cli.options import positive, share

FLAGS = ("modalities", "modality_dropout", "epochs", "batch_size", "lr", "data_seed")  # fields with a flag of their own
STREAM_AXIS = "stream."  # begins the name of an axis of streams
NO_AXES: Mapping[str, object] = {}

OPTIONS: Sequence[Callable[[Any], Any]] = (
    click.option("--fusion", metavar="HEAD", help="Name of the head, see --list-heads; a recipe names its own."),
    click.option(
        "--cache",
        required=True,
        type=click.Path(path_type=Path),
        help="Cache to train on; a quoted pattern for several files that are one corpus.",
    ),
    click.option("--recipe", help="Settings of a paper, see --list-recipes; NAME:paper for its optimizer too."),
    click.option(
        "--protocol",
        help="session, speaker, session5, random5, official, actor6, actor5, auto.  [default: the corpus']",
    ),
    click.option("--labels", help="Name of a label set, or happy=hap+exc,sad=sad.  [default: the corpus']"),
    click.option(
        "--only",
        multiple=True,
        metavar="COLUMN=VALUE",
        help="Take these utterances alone, such as style=improvised; repeatable, several values by +.",
    ),
    click.option("--audio", metavar="STREAM", help="Stream to read as audio, where the cache has several."),
    click.option("--text", metavar="STREAM", help="Stream to read as text, where the cache has several."),
    click.option(
        "--stream", "streams", multiple=True, metavar="ROLE=STREAM", help="Stream for another role; repeatable."
    ),
    click.option("--modalities", type=click.Choice(["both", "audio", "text"]), help="Read one modality alone."),
    click.option("--modality-dropout", type=float, help="How often training takes one of two modalities away."),
    click.option("--epochs", type=int, callback=positive(int), help="At most."),
    click.option("--batch-size", type=int, callback=positive(int)),
    click.option("--lr", type=float, callback=positive(float), help="Learning rate."),
    click.option("--data-seed", type=int, help="Of random folds, dev parts and the order of batches.  [default: 0]"),
    click.option(
        "--set", "fields", multiple=True, metavar="FIELD=VALUE", help="Any field of head or training; repeatable."
    ),
    click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps."),
    click.option(
        "--resident-share",
        type=float,
        callback=share,
        default=0.5,
        show_default=True,
        help="Share of the device's memory that features may be held in; they are read as needed where they take more.",
    ),
    click.option(
        "--allow-missing", is_flag=True, help="Score the test utterances that have features where some have none."
    ),
    click.option(
        "--allow-leak", is_flag=True, help="Take an encoder that has seen test speakers; printed in the results."
    ),
)


def experiment_options(command: Any) -> Any:
    """Gives a command the options of `OPTIONS`, in their order."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def experiment_of(asked: Mapping[str, Any], cache: Any, axes: Mapping[str, object] = NO_AXES) -> Any:
    """Gives the experiment that a command was asked for.

    Args:
        asked: by option, those of `OPTIONS` and ``seeds``.
        cache: an open cache.
        axes: fields and ``stream.ROLE`` that a grid sets, on top of what was asked for.

    Raises:
        MmerError: if a head, a recipe, a field or a stream is unknown, or a value is not allowed.
    """
    from fusion.configure import configure, parse_fields
    from fusion.experiment import Experiment
    from fusion.narrowing import parse_only
    from fusion.recipe import streams_of

    chosen, fusion = head_of(asked)
    base = {**(chosen.fields if chosen else {}), **fields_of(asked)}
    of_axes = {name.removeprefix(STREAM_AXIS): str(one) for name, one in axes.items() if name.startswith(STREAM_AXIS)}
    fields = {name: one for name, one in axes.items() if not name.startswith(STREAM_AXIS)}
    head, training = configure(fusion, {**base, **fields})
    named = _named_streams(asked)
    if fields:  # a role that this combination alone drops needs no stream
        dropped = configure(fusion, base)[0].every_role - head.every_role
        named = {role: name for role, name in named.items() if role not in dropped}
    named |= of_axes
    return Experiment(
        fusion=fusion,
        head=head,
        training=training,
        seeds=asked["seeds"] or (0,),
        streams=streams_of(chosen, cache, {*head.roles, *head.weight_roles}, named) if chosen else named,
        labels=asked["labels"] or (chosen.labels if chosen else None),
        protocol=asked["protocol"] or (chosen.protocol if chosen else None),
        only=parse_only(parse_fields(asked["only"], form="COLUMN=VALUE", such_as="--only style=improvised")),
        allow_missing=asked["allow_missing"],
        allow_leak=asked["allow_leak"],
        recipe=asked["recipe"] or "",
    )


def head_of(asked: Mapping[str, Any]) -> tuple[Any, str]:
    """Gives the recipe that was asked for, None without one, and the name of the head.

    Raises:
        MmerError: if there is no head, or the recipe is another's.
    """
    from cache.errors import MmerError
    from fusion.recipes import recipe

    chosen = recipe(asked["recipe"]) if asked["recipe"] else None
    fusion = asked["fusion"] or (chosen.fusion if chosen else None)
    if fusion is None:
        raise MmerError("name a head by --fusion, see --list-heads, or a --recipe")
    if chosen and chosen.fusion != fusion:
        raise MmerError(f"recipe {chosen.name} is for head {chosen.fusion}, not for {fusion}; leave --fusion out")
    return chosen, fusion


def fields_of(asked: Mapping[str, Any]) -> dict[str, object]:
    """Gives the fields that flags and ``--set`` set."""
    from fusion.configure import check_once, parse_fields

    fields: dict[str, object] = {name: asked[name] for name in FLAGS if asked[name] is not None}
    for name, value in parse_fields(asked["fields"]).items():
        check_once(name, fields)
        fields[name] = value
    return fields


def _named_streams(asked: Mapping[str, Any]) -> dict[str, str]:
    """Gives the streams that the user names, by role."""
    from fusion.configure import check_once, parse_fields

    streams: dict[str, str] = {role: asked[role] for role in ("audio", "text") if asked[role]}
    for role, name in parse_fields(asked["streams"], form="ROLE=STREAM", such_as="--stream mel=logmel80").items():
        check_once(role, streams)
        streams[role] = name
    return streams
