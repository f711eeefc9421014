"""From field=value pairs to the configuration of a head and of its training."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields

from cache.errors import MmerError
from fusion.experiment import Experiment
from fusion.head import HeadConfig
from fusion.heads.catalog import config_for, head_spec
from fusion.settings import configured, nearest
from fusion.train_config import TrainConfig

SCORE = "score"
ELSEWHERE = {"seed": "--seed"}  # fields of the training that a run sets itself


def configure(fusion: str, values: Mapping[str, object]) -> tuple[HeadConfig, TrainConfig]:
    """Builds both configurations from the fields that are to differ from their defaults.

    Args:
        fusion: name of the head.
        values: by field, of the head or of the training; as text or as they are.

    Raises:
        MmerError: if the head or a field is unknown, or a value is not allowed.
    """
    of_head = {one.name for one in fields(head_spec(fusion).config)}
    of_training = {one.name for one in fields(TrainConfig)} - ELSEWHERE.keys()
    known = of_head | of_training
    for name in values:
        if name in ELSEWHERE:
            raise MmerError(f"{name} is no field to set; it is given by {ELSEWHERE[name]}")
        if name not in known:
            raise MmerError(f"head {fusion} and its training have no field {name!r}; {nearest(name, sorted(known))}")
    head = config_for(fusion, {name: value for name, value in values.items() if name in of_head})
    training = configured(
        TrainConfig, {name: value for name, value in values.items() if name in of_training}, owner="training"
    )
    if fusion == SCORE and (training.class_weights or training.label_smoothing):
        raise MmerError(f"head {SCORE} trains two models by their own losses; leave class weights and smoothing out")
    return head, training


def changed_fields(experiment: Experiment, values: Mapping[str, object]) -> list[str]:
    """Names the fields of a run that are not as a recipe sets them, each as ``field=value``.

    Args:
        experiment: the run.
        values: what the recipe sets, by field.

    Raises:
        MmerError: if the recipe is no configuration of the head.
    """
    asked = [asdict(one) for one in configure(experiment.fusion, values)]
    taken = [asdict(experiment.head), {**asdict(experiment.training), "seed": asked[1]["seed"]}]
    return [
        f"{name}={value}"
        for mine, theirs in zip(taken, asked, strict=True)
        for name, value in mine.items()
        if value != theirs[name]
    ]


def parse_fields(
    texts: Iterable[str], *, form: str = "FIELD=VALUE", such_as: str = "--set alpha=0.1"
) -> dict[str, str]:
    """Reads ``NAME=VALUE`` pairs.

    Args:
        texts: the pairs.
        form: what a pair looks like, for errors.
        such_as: an example, for errors.

    Raises:
        MmerError: if one is not of that form, or a name is given twice.

    Example:
        >>> parse_fields(("alpha=0.1", "layers=2"))
        {'alpha': '0.1', 'layers': '2'}
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = (part.strip() for part in text.partition("="))
        if not name or not value:
            raise MmerError(f"{text!r} is no {form}, such as {such_as}")
        check_once(name, found)
        found[name] = value
    return found


def check_once(name: str, given: Iterable[str]) -> None:
    """Refuses a name that was given before.

    Raises:
        MmerError: if it was.
    """
    if name in given:
        raise MmerError(f"{name} is given twice; give it once")
