from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cache.joined import open_cache
from cli.train import _beside
from fusion.experiment.experiment import Experiment
from fusion.experiment.fields import configure
from fusion.experiment.plan import plan_run
from fusion.recipes.catalog import recipe
from tests.support.heads import samples
from tests.support.runs import COUNT, utterances, write_cache

LABELS = "angry=angry,happy=happy,sad=sad,calm=calm"
ELSEWHERE = f"labels={LABELS}, text=words@4"
LATE = f"labels={LABELS}, patches=vit, text=words@4"
MEAN = {"wa": 0.5, "ua": 0.5, "wf1": 0.5, "mf1": 0.5}


def told(cache: Path, *, narrowed: Mapping[str, object] | None = None, **changed: object) -> list[str]:
    """Gives what is printed after a run of a recipe with some fields changed, on fewer utterances."""
    chosen = recipe("jfm-iemocap")
    head, training = configure("jfm", {**chosen.fields, **changed})
    asked: dict[str, object] = {
        "streams": {"text": "words@4"},
        "labels": LABELS,
        "protocol": "session",
        "recipe": chosen.name,
    }
    asked |= narrowed or {}
    experiment = Experiment(fusion="jfm", head=head, training=training, **asked)  # type: ignore[arg-type]
    return _beside(plan_run(experiment, open_cache(cache)), {"mean": MEAN, "protocol": "session"})


def test_a_run_of_a_published_variant_is_marked_after_a_recipe(trainable: Path) -> None:
    lines = told(trainable, fusion="late")
    assert lines[1].endswith(f", NOT the recipe: fusion=late, {LATE}, published as 'late fusion'")
    assert [line for line in lines if line.endswith(", the variant run here")] == [
        next(line for line in lines if line.startswith("published: late fusion"))
    ]


def test_other_changes_are_told_without_a_mark(trainable: Path) -> None:
    lines = told(trainable, fusion="late", epochs="3")
    assert lines[1].endswith(f", NOT the recipe: fusion=late, epochs=3, {LATE}")
    assert not [line for line in lines if line.endswith(", the variant run here")]


def test_other_labels_and_streams_are_told_too(trainable: Path) -> None:
    plain = f"toy, frozen features, protocol session, labels {LABELS}, NOT the recipe: {ELSEWHERE}"
    assert told(trainable)[1].endswith(plain)


def test_fewer_utterances_are_told_too(trainable: Path, tmp_path: Path) -> None:
    assert told(trainable, narrowed={"only": {"session": ("1", "2")}})[1].endswith(
        f"NOT the recipe: {ELSEWHERE}, --only session=1+2"
    )
    lacking = write_cache(tmp_path / "lacking.h5", failing={"words@4": 3})
    missing = {"allow_missing": True}
    assert told(lacking, narrowed=missing)[1].endswith(f"NOT the recipe: {ELSEWHERE}, --allow-missing")
    assert told(trainable, narrowed=missing)[1].endswith(f"NOT the recipe: {ELSEWHERE}")
    named = utterances(samples(COUNT))
    named[3] = replace(named[3], id="test_dia38_utt4")  # published as broken: nobody has to allow it
    meld = {"corpus": {"name": "meld", "root": ""}, "utterances": named}
    broken = write_cache(tmp_path / "broken.h5", failing={"words@4": 3}, **meld)
    assert told(broken)[1].endswith(f"NOT the recipe: {ELSEWHERE}")
