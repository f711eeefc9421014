import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cache.errors import MmerError
from cache.joined import open_cache
from fusion.experiment.experiment import Experiment
from fusion.experiment.fields import configure
from fusion.experiment.plan import plan_run
from fusion.experiment.request import ExperimentRequest
from fusion.recipes.catalog import recipe
from fusion.run.published import compare_run
from fusion.run.train import fuse_runs, train_run
from tests.support.heads import samples
from tests.support.runs import COUNT, QUICK, SMALL, TWO_FOLDS, Told, reader_of, utterances, write_cache

LABELS = "angry=angry,happy=happy,sad=sad,calm=calm"
ELSEWHERE = f"labels={LABELS}, text=words@4"
LATE = f"labels={LABELS}, patches=vit, text=words@4"
AUDIO = f", NOT the recipe: modalities=audio, labels={LABELS}, audio=voice"
SEEN = ("text", "mel", "patches")
HEARD = ("audio", "text", "tokens", "codes", "chars")
WAV2VEC = {"source": "facebook/wav2vec2-base"}
MEAN = {"wa": 0.5, "ua": 0.5, "wf1": 0.5}


def told(
    cache: Path, *, narrowed: Mapping[str, object] | None = None, of: str = "jfm-iemocap", **changed: object
) -> list[str]:
    """Returns the printed text of a run of a recipe with changed fields, on fewer utterances."""
    chosen = recipe(of)
    head, training = configure(chosen.fusion, {**chosen.fields, **changed})
    asked: dict[str, object] = {
        "streams": {"text": "words@4"} if "text" in head.roles else {},
        "labels": LABELS,
        "protocol": "session",
        "recipe": chosen.name,
    }
    asked |= narrowed or {}
    experiment = Experiment(fusion=chosen.fusion, head=head, training=training, **asked)  # type: ignore[arg-type]
    return compare_run(plan_run(experiment, reader_of(cache)), {"mean": MEAN, "protocol": "session"})


def test_a_run_is_marked_as_a_published_variant_only_if_its_encoder_is_that_of_the_paper(
    trainable: Path, tmp_path: Path
) -> None:
    papers = write_cache(tmp_path / "papers.h5", specs={"audio": WAV2VEC}, roles=HEARD)
    lines = told(papers, of="gcf2net-iemocap", modalities="audio")
    assert lines[1].endswith(f"{AUDIO}, published as 'audio alone'")
    assert [line for line in lines if line.endswith(", the variant run here")] == [
        next(line for line in lines if line.startswith("published: audio alone"))
    ]
    lines = told(trainable, of="gcf2net-iemocap", modalities="audio")
    assert lines[1].endswith(AUDIO)
    assert not [line for line in lines if line.endswith(", the variant run here")]


def test_an_encoder_that_was_pre_trained_again_is_like_for_like_with_the_figures_that_have_it(tmp_path: Path) -> None:
    again = {"trained": "Transformer and quantizer, pre-trained", "source": "facebook/wav2vec2-base", "corpus": "other"}
    cache = write_cache(tmp_path / "again.h5", specs={"audio": {"trained_on": again}}, roles=HEARD)
    lines = told(cache, of="lemer-iemocap", modalities="audio", tonal_labels="off")
    assert "published as 'B2: B5, no labels'" in lines[1]
    once = write_cache(tmp_path / "once.h5", specs={"audio": WAV2VEC}, roles=HEARD)
    lines = told(once, of="lemer-iemocap", modalities="audio", tonal_labels="off")
    assert "published as 'B1: B2, pre-trained once'" in lines[1]
    assert sum("not like for like: second-stage pre-training" in line for line in lines) == 9


def test_no_printed_recall_is_missing_next_to_the_obtained_ones(trainable: Path, tmp_path: Path) -> None:
    request = ExperimentRequest(
        recipe="gcf2net-iemocap",
        fields={**QUICK, "epochs": 1, "dim": 8, "modalities": "audio"},
        streams={"audio": "voice"},
        labels="ang=angry,hap=happy,neu=calm,sad=sad",
    )
    run = train_run(request.experiment(reader_of(trainable)), reader_of(trainable), out=tmp_path / "run")
    (start,) = (place for place, line in enumerate(run.comparison) if line.startswith("recall of each class"))
    obtained = [f"{100 * recall:.2f}" for recall in run.results["recall"].values()]
    assert run.comparison[start + 1].split() == ["obtained", *obtained]
    assert "91.27" in run.comparison[start + 2]
    assert "86.94" in run.comparison[start + 3]
    assert run.results["published"][0] == {"what": "GCF2-Net", "status": "derived", "wa": 0.8201, "ua": 0.828}


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
    lacking = write_cache(tmp_path / "lacking.h5", failing={"words@4": 3}, roles=SEEN)
    missing = {"allow_missing": True}
    assert told(lacking, narrowed=missing)[1].endswith(f"NOT the recipe: {ELSEWHERE}, --allow-missing")
    assert told(trainable, narrowed=missing)[1].endswith(f"NOT the recipe: {ELSEWHERE}")
    named = utterances(samples(COUNT))
    named[3] = replace(named[3], id="test_dia38_utt4")  # published as broken: nobody has to allow it
    meld = {"corpus": {"name": "meld", "root": ""}, "utterances": named}
    broken = write_cache(tmp_path / "broken.h5", failing={"words@4": 3}, roles=SEEN, **meld)
    assert told(broken)[1].endswith(f"NOT the recipe: {ELSEWHERE}")


def requested(cache: Path, fusion: str = "audio", **fields: object) -> Experiment:
    return ExperimentRequest(fusion=fusion, fields={**QUICK, **fields}).experiment(reader_of(cache))


def test_a_run_is_trained_and_then_read_again(trainable: Path, tmp_path: Path) -> None:
    first = train_run(requested(trainable), reader_of(trainable), out=tmp_path / "run")
    progress = Told()
    again = train_run(requested(trainable), reader_of(trainable), out=tmp_path / "run", progress=progress)
    assert again == first
    assert (first.folder, progress.started, first.comparison) == (tmp_path / "run", [], ())
    assert first.mean == first.results["mean"]
    assert [(scores["fold"], scores["seed"]) for scores in first.folds] == [("1", 0), ("2", 0), ("3", 0)]
    assert first.seconds > 0
    assert first.results["protocol_name"] == "leave one session out"
    assert (
        (tmp_path / "run" / "results.md").read_text().startswith("# audio on toy, protocol session (leave one session")
    )
    assert first.notes[0].startswith("recall: angry ")
    header, rows = first.table
    assert (header[0], len(rows)) == ("fold", 7)
    assert first.latex.startswith("audio & ")


def test_a_finished_run_is_printed_from_a_folder_that_cannot_be_written(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions do not stop the administrator, as whom tests may run: the question for them is answered instead."""
    out = tmp_path / "run"
    first = train_run(requested(trainable, epochs=1), reader_of(trainable), out=out)
    (out / "results.md").write_text("older")
    before, allowed = {path: path.stat().st_mtime_ns for path in out.rglob("*")}, os.access
    monkeypatch.setattr(os, "access", lambda path, mode: allowed(path, mode) and Path(path) != out)
    progress = Told()
    found = train_run(requested(trainable, epochs=1), reader_of(trainable), out=out, progress=progress)
    assert (found, progress.started) == (first, [])
    assert progress.notes[-1] == f"{out} cannot be written; not renewed: results.md"
    for seeds, anew in (((0, 1), False), ((0,), True)):
        request = ExperimentRequest(fusion="audio", fields={**QUICK, "epochs": 1}, seeds=seeds)
        with pytest.raises(MmerError, match="cannot write to"):
            train_run(request.experiment(reader_of(trainable)), reader_of(trainable), out=out, replace=anew)
    (out / "1-seed0" / "predictions.csv").rename(tmp_path / "predictions.csv")
    with pytest.raises(MmerError, match="cannot write to"):  # before it is trained again
        train_run(requested(trainable, epochs=1), reader_of(trainable), out=out)
    (tmp_path / "predictions.csv").rename(out / "1-seed0" / "predictions.csv")
    after = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert {path: time for path, time in after.items() if path.is_file()} == {
        path: time for path, time in before.items() if path.is_file()
    }


def test_a_recipe_is_compared_with_its_paper(trainable: Path, tmp_path: Path) -> None:
    request = ExperimentRequest(
        recipe="gcf2net-iemocap",
        fields={**QUICK, **SMALL["rescmfa"], "epochs": 1, "dim": 8},
        streams={"audio": "voice", "text": "words@4"},
        labels=LABELS,
    )
    run = train_run(request.experiment(reader_of(trainable)), reader_of(trainable), out=tmp_path / "run")
    assert run.comparison[1].startswith("obtained")
    assert set(run.comparison) <= set(run.notes)
    assert run.results["published"]


def test_runs_without_a_folder_are_named_after_cache_head_and_settings(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train_run(requested(trainable, epochs=1), reader_of(trainable))
    assert run.folder.parent == Path("runs")
    assert run.folder.name.startswith("toy-audio-")
    other = train_run(requested(trainable, epochs=1), reader_of(trainable), named_after=Path("cache/voices-*.h5"))
    assert other.folder.name == run.folder.name.replace("toy", "voices")


def test_a_run_that_is_told_to_stop_stops_and_is_resumed(trainable: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_run(requested(trainable), reader_of(trainable), out=tmp_path / "run", stopping=lambda: True)
    run = train_run(requested(trainable), reader_of(trainable), out=tmp_path / "run")
    whole = train_run(requested(trainable), reader_of(trainable), out=tmp_path / "whole")
    assert run.folds == whole.folds


def test_runs_are_fused_by_the_sum_of_their_logits(trainable: Path, tmp_path: Path) -> None:
    cache = reader_of(trainable)
    trained = [train_run(requested(trainable, head), cache, out=tmp_path / head) for head in ("audio", "text")]
    runs = [run.folder for run in trained]
    fused = fuse_runs(runs, cache, out=tmp_path / "sum")
    assert (fused.folder, fused.results["fusion"], fused.seconds) == (tmp_path / "sum", "score", 0)
    assert fused.parameters == sum(run.parameters for run in trained)
    assert fused.comparison == ()
    with pytest.raises(MmerError, match="two or more"):
        fuse_runs(runs[:1], cache)


@pytest.mark.parametrize(("history", "lines"), [(10, 1), (0, 0)])
def test_the_sum_of_two_label_enhanced_runs_is_compared_with_the_score_fusion_of_the_paper(
    tmp_path: Path, history: int, lines: int
) -> None:
    bert = {"source": "google-bert/bert-base-uncased", "layers": "last", "preprocessing": {"history": history}}
    cache = open_cache(write_cache(tmp_path / "toy.h5", specs={"audio": WAV2VEC, "text": bert}, roles=HEARD))
    runs = []
    for modality, stream in (("audio", "voice"), ("text", "words@4")):
        fields, streams = {"modalities": modality}, {modality: stream}
        request = ExperimentRequest(recipe="lemer-iemocap", fields=fields, streams=streams, labels=LABELS, **TWO_FOLDS)
        runs.append(train_run(request.experiment(cache), cache, out=tmp_path / modality).folder)
    comparison = fuse_runs(runs, cache, out=tmp_path / "sum").comparison
    marked = [line for line in comparison if line.endswith("second-stage pre-training, the variant run here")]
    assert [line.startswith("published: sum of the logits of A5 and B5") for line in marked] == [True] * lines
    assert bool(comparison) == bool(lines)
