import json
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cache.layout import StreamPlan
from cache.packs import catalog
from cache.packs import third_party as foreign
from cache.packs.native import WRITERS
from cache.store import FeatureCache
from cli import maintain as packs
from tests.support.packs import everything, frames, write_emobox, write_emotion2vec


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments])


@pytest.mark.parametrize("layout", packs.OURS)
def test_a_cache_goes_out_and_comes_back(toy: tuple[Path, StreamPlan], tmp_path: Path, layout: str) -> None:
    out = run(packs.export, toy[0], tmp_path / "pack", "--layout", layout, "--stream", "enc")
    assert out.exit_code == 0, out.output
    assert "pack: 4 utterances, 1 streams, " in out.stdout
    back = run(packs.import_pack, tmp_path / "pack", tmp_path / "b.h5")
    assert back.exit_code == 0, back.output
    assert back.stdout.splitlines()[-1] == f"{tmp_path / 'pack'} ({layout}) -> {tmp_path / 'b.h5'}: created"
    assert everything(tmp_path / "b.h5") == everything(toy[0])


def test_both_print_one_object_for_machines(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    out = json.loads(run(packs.export, toy[0], tmp_path / "pack", "--json").stdout)
    assert out["streams"] == {"enc": 3}
    assert (out["utterances"], out["layout"]) == (4, "npy")
    back = json.loads(run(packs.import_pack, tmp_path / "pack", tmp_path / "b.h5", "--json").stdout)
    assert (back["layout"], back["created"], back["left_out"]) == ("npy", True, [])
    assert back["streams"]["enc"]["committed"] == 3
    assert back["failures"] == [{"id": "c", "stream": "enc", "reason": "missing"}]


def test_features_of_others_join_a_cache(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    folder = write_emotion2vec(tmp_path / "feats", {name: frames(3) for name in "dcbax"})
    stopped = run(packs.import_pack, folder, toy[0])
    assert (stopped.exit_code, len(stopped.stderr.splitlines())) == (1, 1)
    assert "(first: x); leave them out with --partial" in stopped.stderr
    added = run(packs.import_pack, folder, toy[0], "--partial", "--stream", "e2v=emotion2vec", "--role", "text")
    assert added.exit_code == 0, added.output
    assert "left out: 1 utterances that" in added.stdout
    assert added.stdout.splitlines()[-1].endswith("(emotion2vec) -> " + f"{toy[0]}: added")
    assert FeatureCache(toy[0]).stream("e2v").spec.role == "text"


def test_metadata_and_layout_may_be_named(tmp_path: Path) -> None:
    folder = write_emobox(tmp_path / "enc", {"a": frames(2)})
    (folder / "toy.jsonl").rename(tmp_path / "toy.jsonl")
    options = ["--layout", "emobox", "--metadata", tmp_path / "toy.jsonl", "--corpus", "mine"]
    made = run(packs.import_pack, folder, tmp_path / "a.h5", *options)
    assert made.exit_code == 0, made.output
    assert FeatureCache(tmp_path / "a.h5").header["corpus"]["name"] == "mine"


def test_nothing_is_replaced_unless_asked_for(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    for number in (0, 1):
        write_emotion2vec(tmp_path / str(number), {name: frames(3, seed=number) for name in "abcd"})
    assert run(packs.import_pack, tmp_path / "0", toy[0]).exit_code == 0
    assert "--replace imports that of the pack" in run(packs.import_pack, tmp_path / "1", toy[0]).stderr
    assert run(packs.import_pack, tmp_path / "1", toy[0], "--replace").exit_code == 0
    np.testing.assert_array_equal(FeatureCache(toy[0]).stream("emotion2vec").read(2), frames(3, seed=1))
    assert run(packs.export, toy[0], tmp_path / "pack").exit_code == 0
    assert "pass --replace to overwrite it" in run(packs.export, toy[0], tmp_path / "pack").stderr
    assert run(packs.export, toy[0], tmp_path / "pack", "--replace").exit_code == 0


def test_choices_are_those_of_the_library() -> None:
    assert set(packs.OURS) == set(WRITERS)
    assert list(packs.LAYOUTS) == list(catalog.LAYOUTS)
    assert set(packs.ROLES) == set(foreign.ROLES)
