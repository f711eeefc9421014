import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cache.merge import merge_caches
from cli.main import mmer
from cli.train import train
from fusion.heads.catalog import HEADS
from fusion.recipes.catalog import RECIPES
from tests.support.commands import stopped
from tests.support.runs import STREAMS, files_of, train_by_command, write_cache

KEYS = ["fusion", "cache", "corpus", "streams", "protocol", "protocol_name", "labels", "run", "folds"]
KEYS += ["mean", "std", "std_seeds", "interval", "pooled"]
FOLD_KEYS = ["fold", "seed", "epoch", "train", "dev", "test", "wa", "ua", "wf1", "mf1"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without(*names: str) -> list[str]:
    """The streams of the trainable cache but these."""
    return [name for name, _, _ in STREAMS.values() if name not in names]


def done(result: Result) -> str:
    """What a run printed as its result."""
    assert result.exit_code == 0, result.output
    return result.stdout


def test_json_is_the_object_of_the_contract_and_nothing_else(trainable: Path, here: Path) -> None:
    result = train_by_command(trainable, "--fusion", "audio", "--json")
    told = json.loads(done(result))
    assert result.stdout.count("\n") == 1
    assert list(told) == [*KEYS, "recall", "f1", "calibration", "notes"]
    assert told["notes"][0].startswith("the interval is over 6 speakers or dialogues")
    assert told["notes"][2] == "frozen features of voice"
    assert told["notes"][-1].startswith("epochs are selected on dev by wf1; each test subset is scored once")
    assert list(told["folds"][0])[: len(FOLD_KEYS)] == FOLD_KEYS
    assert json.loads((here / told["run"] / "results.json").read_text()) == told
    assert "features of voice" not in result.stderr  # a note is printed once


def test_the_table_has_every_fold_and_what_the_scores_are_worth(trainable: Path, here: Path) -> None:
    lines = done(
        train_by_command(trainable, "--fusion", "concat", "--seed", "1", "--seed", "2", "--epochs", "1")
    ).splitlines()
    assert lines[0].split() == ["fold", "seed", "epoch", "train", "dev", "test", "WA", "UA", "W-F1", "M-F1"]
    assert [line.split()[:2] for line in lines[1:7]] == [[str(f), str(s)] for s in (1, 2) for f in (1, 2, 3)]
    titles = ["mean", "std over folds", "std over seeds", "pooled", "95% of pooled"]
    assert [line.startswith(title) for line, title in zip(lines[7:12], titles, strict=True)] == [True] * 5
    assert lines[12] == "WA accuracy, UA mean recall of the classes, W-F1 weighted F1, M-F1 macro F1; in percent"
    assert [line.split(":")[0] for line in lines[13:15]] == ["recall", "F1"]
    assert lines[15].startswith("the interval is over 6 speakers")
    assert lines[16].startswith("session: leave one session out: test shares no speaker with train or dev")
    assert lines[17] == "frozen features of voice, words@4"
    assert lines[-1].startswith("runs/toy-concat-")
    assert " parameters, " in lines[-1]


def test_a_finished_run_is_printed_again_and_replace_trains_anew(trainable: Path, here: Path) -> None:
    first = train_by_command(trainable, "--fusion", "audio")
    before = files_of(here / "runs")
    again = train_by_command(trainable, "--fusion", "audio")
    assert done(again) == done(first)
    assert "fold 1 of 3, seed 0: chosen epoch " in first.stderr
    assert "epoch" not in again.stderr
    anew = train_by_command(trainable, "--fusion", "audio", "--replace")
    assert "fold 1 of 3, seed 0: chosen epoch " in anew.stderr
    assert files_of(here / "runs") == before


def test_replace_trains_another_run_into_the_same_folder(trainable: Path, here: Path) -> None:
    done(train_by_command(trainable, "--fusion", "audio", "--out", "out"))
    (here / "out" / "notes.txt").write_text("mine")
    other = ["--fusion", "text", "--out", "out"]
    assert "out already holds a different run (fusion: audio there, text requested" in stopped(
        train_by_command(trainable, *other)
    )
    told = json.loads(done(train_by_command(trainable, *other, "--replace", "--json")))
    assert (told["fusion"], told["run"]) == ("text", "out")
    assert (here / "out" / "notes.txt").read_text() == "mine"


def test_flags_reach_the_run(trainable: Path, here: Path) -> None:
    options = ["--batch-size", "9", "--lr", "0.02", "--data-seed", "5", "--modality-dropout", "0.2", "--epochs", "1"]
    fields = ["--set", "monitor=ua", "--set", "pooling=max", "--audio", "logmel80", "--stream", "text=words@4"]
    labels = ["--labels", "loud=angry+happy,low=sad+calm", "--protocol", "speakers:3"]
    told = json.loads(done(train_by_command(trainable, "--fusion", "concat", *options, *fields, *labels, "--json")))
    decides = json.loads((here / told["run"] / "run.json").read_text())["decides"]
    training = {"batch_size": 9, "lr": 0.02, "data_seed": 5, "epochs": 1, "monitor": "ua"}
    assert decides["training"].items() >= training.items()
    assert (decides["head"]["modality_dropout"], decides["head"]["pooling"]) == (0.2, "max")
    assert decides["streams"]["audio"].startswith("logmel80 ")
    assert (told["protocol"], told["labels"], len(told["folds"])) == ("speakers:3", ["loud", "low"], 3)


def test_only_some_utterances_take_part_and_that_is_told(trainable: Path, here: Path) -> None:
    told = json.loads(done(train_by_command(trainable, "--fusion", "audio", "--only", "session=1+3", "--json")))
    assert [one["fold"] for one in told["folds"]] == ["1", "3"]
    assert "only session=1+3: 48 of 72 utterances" in told["notes"]
    whole = json.loads(done(train_by_command(trainable, "--fusion", "audio", "--dry-run", "--json")))
    assert whole["folder"] != told["run"]
    decides = json.loads((here / told["run"] / "run.json").read_text())["decides"]
    assert decides["only"] == {"session": ["1", "3"]}


def test_latex_prints_a_row_after_all(trainable: Path, here: Path) -> None:
    lines = done(train_by_command(trainable, "--fusion", "audio", "--latex")).splitlines()
    last = lines[-1]
    assert last.startswith("audio & voice & session & ")
    assert last.count(r" $\pm$ ") == 4
    assert last.endswith(r"] \\")
    headed = done(train_by_command(trainable, "--fusion", "audio", "--latex-header")).splitlines()
    assert headed == [*lines[:-1], r"head & streams & protocol & WA & UA & W-F1 & M-F1 \\", last]


def test_quiet_prints_scores_and_what_limits_them_and_nothing_else(trainable: Path, here: Path) -> None:
    result = train_by_command(trainable, "--fusion", "audio", "--quiet")
    lines = done(result).splitlines()
    assert result.stderr == ""
    assert lines[-3].startswith("WA accuracy, UA mean recall of the classes, ")
    assert lines[-2] == "the interval is over 6 speakers or dialogues: too few to say much"
    assert lines[-1].startswith("runs/toy-audio-voice-")
    loud = train_by_command(trainable, "--fusion", "audio")
    assert set(lines) < set(done(loud).splitlines())
    everything = json.loads((here / lines[-1].partition(":")[0] / "results.json").read_text())["notes"]
    printed = [*loud.stdout.splitlines(), *loud.stderr.splitlines()]
    assert [printed.count(note) for note in everything] == [1] * len(everything)


def test_a_recipe_prints_the_published_figures_beside_the_obtained_ones(trainable: Path, here: Path) -> None:
    labels = "angry=angry,happy=happy,sad=sad,calm=calm"
    streams = ["--audio", "voice", "--text", "words@4", "--labels", labels, "--set", "layers=1", "--epochs", "1"]
    told = done(train_by_command(trainable, "--recipe", "gcf2net-iemocap", *streams))
    assert "obtained" in told
    assert f"toy, frozen features, protocol session, labels {labels}" in told
    assert told.count("published") >= 2
    wrong = stopped(train_by_command(trainable, "--recipe", "gcf2net-iemocap", "--fusion", "audio"))
    assert wrong == "Error: recipe gcf2net-iemocap is for head rescmfa, not for audio; leave --fusion out"


def test_the_logits_of_finished_runs_are_added_up(trainable: Path, here: Path) -> None:
    for head in ("audio", "text"):
        done(train_by_command(trainable, "--fusion", head, "--out", head))
    both = ["--fusion", "score", "--cache", str(trainable), "--run", "audio", "--run", "text"]
    told = json.loads(done(CliRunner().invoke(train, [*both, "--json"])))
    assert (list(told), told["fusion"], told["run"]) == (
        [*KEYS, "recall", "f1", "calibration", "notes"],
        "score",
        "runs/score-audio-text",
    )
    lines = done(CliRunner().invoke(train, both)).splitlines()
    assert "the sum of the logits of audio and text" in lines
    assert "frozen features of voice" in lines
    assert lines[-1] == "runs/score-audio-text: 392 parameters"
    assert "leave out: epochs" in stopped(CliRunner().invoke(train, [*both, "--epochs", "3"]))
    assert "two or more" in stopped(CliRunner().invoke(train, both[:-2]))


def test_shards_give_the_folds_and_scores_of_the_merged_file(tmp_path: Path, here: Path) -> None:
    from tests.support.shards import write_piece

    whole = write_cache(tmp_path / "whole.h5", without=without("voice"))
    streams, ids = ["voice"], [f"u{index:02}" for index in range(72)]
    pieces = [write_piece(whole, tmp_path / f"s-{place}-of-3.h5", ids[place::3], streams) for place in range(3)]
    merge_caches(tmp_path / "merged.h5", pieces)
    told = [
        json.loads(done(train_by_command(tmp_path / name, "--fusion", "audio", "--out", out, "--json")))
        for name, out in (("merged.h5", "a"), ("s-*-of-3.h5", "b"))
    ]
    assert told[0]["cache"] != told[1]["cache"]
    assert {**told[0], "cache": "", "run": ""} == {**told[1], "cache": "", "run": ""}
    one, other = files_of(here / "a"), files_of(here / "b")
    assert {name for name in one if one[name] != other[name]} == {"run.json", "results.json"}
    dry = done(train_by_command(tmp_path / "s-*-of-3.h5", "--fusion", "audio", "--dry-run"))
    assert "would write runs/s-of-3-audio-" in dry


def test_utterances_left_out_and_too_long_ones_are_told(tmp_path: Path, here: Path) -> None:
    cache = write_cache(tmp_path / "a.h5", failing={"voice": 5})
    options = ["--fusion", "rescmfa", "--set", "sgu=dense", "--set", "audio_slots=18", "--allow-missing"]
    told = done(train_by_command(cache, *options, "--set", "layers=1", "--epochs", "1"))
    assert " 23 of 24 " in told
    assert "fold 1: 1 of 24 test utterances are left out, they have no features (u05: no voice, it is silent)" in told
    assert " test utterances are longer than the head can read in full: u" in told
    assert " more\n" in told


def test_an_encoder_that_has_seen_test_speakers_is_told_when_allowed(tmp_path: Path, here: Path) -> None:
    seen = {"corpus": "toy", "speakers": ["1F"]}
    cache = write_cache(tmp_path / "a.h5", trained_on=seen, without=without("voice", "words@4"))
    result = train_by_command(cache, "--fusion", "audio", "--allow-leak")
    told = done(result)
    assert "fold 1: the encoder of voice has seen speaker 1F of test" in told
    before, _, _ = result.stderr.partition("fold 1 of 3")
    assert "note: fold 1: the encoder of voice has seen speaker 1F of test" in before
    assert "features of fine-tuned encoders: voice" in told
    assert "frozen" not in told
    both = done(train_by_command(cache, "--fusion", "concat", "--allow-leak", "--dry-run"))
    assert "features of fine-tuned encoders: voice; frozen features of words@4" in both


def test_the_group_has_the_command(trainable: Path, here: Path) -> None:
    told = done(CliRunner().invoke(mmer, ["train", "--fusion", "audio", "--cache", str(trainable), "--epochs", "1"]))
    assert told.startswith("fold ")


@pytest.mark.parametrize(("option", "known"), [("--list-heads", HEADS), ("--list-recipes", RECIPES)])
def test_what_there_is_is_listed_without_a_cache(option: str, known: dict[str, object]) -> None:
    told = done(CliRunner().invoke(train, [option]))
    assert [name for name in known if name not in told] == []


def test_a_pattern_of_one_file_is_that_file(trainable: Path, here: Path) -> None:
    shutil.copy(trainable, here / "one-1.h5")
    assert json.loads(done(train_by_command(here / "one-*.h5", "--fusion", "audio", "--json")))["fusion"] == "audio"


def test_event_tags_that_are_kept_are_told_with_every_result(tmp_path: Path, here: Path) -> None:
    specs = {"text": {"preprocessing": {"event_tags": "keep"}}}
    cache = write_cache(tmp_path / "a.h5", specs=specs, without=without("words@4"))
    told = done(train_by_command(cache, "--fusion", "text", "--quiet"))
    note = "event tags such as [LAUGHTER] are kept in the transcripts of words@4"
    assert note in told.splitlines()
    (results,) = here.glob("runs/*/results.json")
    assert note in json.loads(results.read_text())["notes"]
    assert f"- {note}\n" in results.with_suffix(".md").read_text()


def test_a_dry_run_prints_folds_and_costs_and_writes_nothing(trainable: Path, here: Path) -> None:
    result = train_by_command(trainable, "--fusion", "concat", "--epochs", "2", "--dry-run")
    lines = done(result).splitlines()
    assert lines[0].split()[:4] == ["fold", "subset", "utterances", "angry"]
    assert [line.split()[:2] for line in lines[1:4]] == [["1", "train"], ["1", "dev"], ["1", "test"]]
    assert lines[10].startswith("session: leave one session out")
    assert [line.split()[0] for line in lines[-4:]] == ["features", "3", "time:", "would"]
    assert lines[-1].startswith("would write runs/toy-concat-")
    assert not list(here.iterdir())


def test_a_dry_run_as_json_names_every_speaker(trainable: Path, here: Path) -> None:
    told = json.loads(done(train_by_command(trainable, "--fusion", "audio", "--dry-run", "--json")))
    assert told["members"][2]["speakers"] == ["1F", "1M"]
    assert told["classes"] == list(told["members"][0]["classes"])
    assert not list(here.iterdir())


def test_a_dry_run_with_the_probe_estimates_both(trainable: Path, here: Path) -> None:
    options = ["--fusion", "concat", "--epochs", "2", "--with-probe", "--dry-run"]
    lines = done(train_by_command(trainable, *options)).splitlines()
    assert [line.split()[0] for line in lines[-6:]] == ["3", "time:", "would", "probe:", "time:", "would"]
    assert lines[-1].startswith("would write runs/toy-probe-")
    told = json.loads(done(train_by_command(trainable, *options, "--json")))
    assert (told["probe"]["folder"], told["probe"]["models"]) == (lines[-1].split()[2].rstrip(":"), 3)
    assert not list(here.iterdir())


def test_finished_runs_are_added_without_a_probe(trainable: Path, here: Path) -> None:
    result = train_by_command(trainable, "--fusion", "score", "--run", "a", "--run", "b", "--with-probe")
    assert "leave out: epochs, with_probe" in stopped(result)


def test_a_dry_run_of_a_fusion_of_finished_runs_is_an_error(trainable: Path, here: Path) -> None:
    result = train_by_command(trainable, "--fusion", "score", "--run", "a", "--run", "b", "--dry-run")
    assert "--run trains nothing" in stopped(result)
