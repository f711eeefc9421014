"""Whatever stops a run is one line on stderr, exit code 1, and no word on stdout."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache.joined import open_cache
from fusion.run.folder import RunFolder
from tests.support.commands import stopped
from tests.support.runs import STREAMS, train_by_command, utterances, write_cache

AUDIO = ["--fusion", "audio"]
UNREAD = [name for name, _, _ in STREAMS.values() if name != "voice"]  # streams that this head does not read


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("share", ["nan", "1.5", "-0.1", "half"])
def test_a_share_that_is_none_is_wrong_usage(trainable: Path, share: str) -> None:
    result = train_by_command(trainable, *AUDIO, "--resident-share", share)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'--resident-share'" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], "no head given; pass --fusion NAME (see --list-heads) or --recipe NAME"),
        (["--fusion", "rescma"], "unknown head 'rescma'; did you mean rescmfa?"),
        (["--fusion", "resnet50"], "unknown head 'resnet50'; "),
        ([*AUDIO, "--set", "droput=0.2"], "have no field 'droput'; did you mean dropout?"),
        ([*AUDIO, "--set", "dropout"], "invalid 'dropout'; expected FIELD=VALUE, such as --set alpha=0.1"),
        ([*AUDIO, "--set", "lr=1", "--lr", "0.1"], "lr is given twice; give it once"),
        ([*AUDIO, "--set", "seed=1"], "seed cannot be set as a field; use --seed"),
        ([*AUDIO, "--modality-dropout", "2"], "modality_dropout must lie in [0, 1), got 2.0"),
        (
            [*AUDIO, "--modality-dropout", "0.2"],
            "modality_dropout (0.2) needs two modalities, got audio only",
        ),
        (
            [*AUDIO, "--seed", "1", "--seed", "1"],
            "seeds must be numbers from 0 to 4294967295 that differ from each other, got 1, 1",
        ),
        ([*AUDIO, "--seed", "-1"], "seeds must be numbers from 0 to 4294967295"),
        ([*AUDIO, "--data-seed", "-1"], "data_seed must be at least 0, got -1"),
        (["--recipe", "gcf2net-iemcap"], "unknown recipe 'gcf2net-iemcap'; did you mean gcf2net-iemocap"),
        (
            ["--recipe", "superb-iemocap"],
            "lacks wav2vec2-base@all, which recipe superb-iemocap reads; add it with mmer-",
        ),
        ([*AUDIO, "--protocol", "sesion"], "unknown protocol 'sesion'; did you mean session or session5?"),
        ([*AUDIO, "--protocol", "official"], "choose another --protocol"),
        ([*AUDIO, "--labels", "iemocap3"], "unknown label set 'iemocap3'; did you mean iemocap4, iemocap5 or iemocap6"),
        ([*AUDIO, "--labels", "meld7"], "label set meld7 leaves no utterance; found: 'angry' (18)"),
        ([*AUDIO, "--labels", "iemocap6"], "no utterance of class 'hap', 'exc', 'ang', 'neu', 'fru'; found: "),
        ([*AUDIO, "--labels", "a=ang,b=hap"], "label set a=ang,b=hap leaves no utterance; found: "),
        ([*AUDIO, "--audio", "vioce"], "no stream vioce; did you mean voice"),
        ([*AUDIO, "--stream", "x=voice"], "the head does not read x, for which a stream is given; it reads audio"),
        ([*AUDIO, "--audio", "voice", "--stream", "audio=voice"], "audio is given twice"),
        ([*AUDIO, "--json", "--latex"], "--json prints one object only); leave one of them out"),
        ([*AUDIO, "--seed", "4294967296"], "seeds must be numbers from 0 to 4294967295"),
        ([*AUDIO, "--data-seed", "4294967296"], "data_seed must be below 4294967296, got 4294967296"),
        (
            [*AUDIO, "--set", "dim=10000000000000000"],
            "head audio needs more memory than is available; choose a smaller dim",
        ),
        (
            [*AUDIO, "--set", "dim=4611686018427387904"],
            "head audio needs more memory than is available; choose a smaller dim",
        ),
        ([*AUDIO, "--set", "dim=99999999999999999999"], "head audio needs more memory than is available; cho"),
        ([*AUDIO, "--device", "cuda:77"], "device 'cuda:77' is not available here"),
        ([*AUDIO, "--out", "/proc/nowhere/x"], "cannot write to /proc/nowhere/x"),
        (["--fusion", "rescmfa", "--set", "heads=5"], "head rescmfa: "),
        (
            ["--fusion", "jfm", "--set", "blocks=4"],
            "4 ViT layers are needed from layer 0 on, the cache holds 3; add them by running",
        ),
    ],
)
def test_what_was_asked_for_wrongly_is_one_line(trainable: Path, options: list[str], told: str) -> None:
    result = train_by_command(trainable, *options)
    assert told in stopped(result)
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("none.h5", "no cache at none.h5; choose an existing file, or make one with"),
        ("none-*.h5", "no cache matches none-*.h5"),
    ],
)
def test_a_cache_that_is_not_there_is_one_line(name: str, told: str) -> None:
    assert told in stopped(train_by_command(Path(name), *AUDIO))


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        (
            {"without": ["voice", *UNREAD]},
            [],
            "no stream for audio, which the head needs; add it with mmer-featurize, the corpus 'toy' as --root "
            "(recorded as a b, which is not here)",
        ),
        (
            {"failing": {"voice": 5}, "without": UNREAD},
            [],
            "fold 1: 1 of 24 test utterances have no features (u05: no voice, it is silent)",
        ),
        (
            {"trained_on": {"corpus": "toy", "speakers": ["2M"]}, "without": UNREAD},
            [],
            "fold 2: the encoder of voice has seen speaker 2M of test; choose another encoder, or pass --allow-leak",
        ),
    ],
)
def test_a_cache_that_does_not_do_is_one_line(
    tmp_path: Path, changes: dict[str, Any], options: list[str], told: str
) -> None:
    assert told in stopped(train_by_command(write_cache(tmp_path / "a.h5", **changes), *AUDIO, *options))


def test_a_class_that_a_test_fold_lacks_is_a_note(tmp_path: Path) -> None:
    from tests.support.heads import samples

    every = utterances(samples(72))
    told = [replace(one, label="happy") if one.session == "2" and one.label == "calm" else one for one in every]
    cache = write_cache(tmp_path / "a.h5", utterances=told, without=UNREAD)
    result = train_by_command(cache, *AUDIO)
    assert result.exit_code == 0, result.stderr
    assert (
        "fold 2: test has no utterance of class calm; its UA and M-F1 are means over the other classes" in result.stdout
    )


def test_a_loss_that_is_not_finite_is_one_line_with_batch_and_epoch(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = "torch.nn.functional.cross_entropy"
    monkeypatch.setattr(broken, lambda logits, *_, **__: logits.sum() * float("nan"))
    told = stopped(train_by_command(trainable, *AUDIO, "--out", "run"))
    assert "the loss cross_entropy is nan in batch 1 of epoch 1; lower lr" in told


def test_a_folder_that_another_process_trains_into_is_one_line(trainable: Path, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").locked():
        told = stopped(train_by_command(trainable, *AUDIO, "--out", "run"))
    assert told == "Error: another process is training into run; wait until it ends, or choose another --out"


def test_replace_never_deletes_a_folder_that_is_no_run(trainable: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "run.json").write_text('{"of": "another tool"}')
    told = stopped(train_by_command(trainable, *AUDIO, "--out", "thesis", "--replace"))
    assert "thesis/run.json was not written by mmer-train; choose another --out" in told
    assert (tmp_path / "thesis" / "run.json").read_text() == '{"of": "another tool"}'


def test_tensorboard_without_its_package_is_one_line(
    trainable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    told = stopped(train_by_command(trainable, *AUDIO, "--tensorboard"))
    assert told == "Error: --tensorboard needs the package tensorboard; pip install tensorboard"


def test_the_cache_has_no_labels_to_train_on(tmp_path: Path) -> None:
    from tests.support.heads import samples

    every = [replace(one, label="") for one in utterances(samples(72))]
    cache = write_cache(tmp_path / "a.h5", utterances=every, without=UNREAD)
    assert "need at least two different labels, got none" in stopped(train_by_command(cache, *AUDIO))
    assert len(open_cache(cache)) == 72
