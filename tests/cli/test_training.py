from pathlib import Path

from cache.joined import open_cache
from cli.training import _beside
from fusion.configure import configure
from fusion.experiment import Experiment
from fusion.plan import plan_run
from fusion.recipes import recipe

LABELS = "angry=angry,happy=happy,sad=sad,calm=calm"
ELSEWHERE = f"labels={LABELS}, text=words@4"
LATE = f"labels={LABELS}, patches=vit, text=words@4"
MEAN = {"wa": 0.5, "ua": 0.5, "wf1": 0.5}


def told(cache: Path, **changed: object) -> list[str]:
    """Gives what is printed after a run of a recipe with some fields changed."""
    chosen = recipe("jfm-iemocap")
    head, training = configure("jfm", {**chosen.fields, **changed})
    asked = {"streams": {"text": "words@4"}, "labels": LABELS, "protocol": "session", "recipe": chosen.name}
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
