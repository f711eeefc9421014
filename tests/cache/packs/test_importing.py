from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from cache.errors import CacheBusy, MmerError
from cache.joined import open_cache
from cache.layout import COMMITTED, FAILED, StreamPlan
from cache.packs.base import Pack
from cache.packs.catalog import open_pack
from cache.packs.export import export_pack
from cache.packs.importing import import_pack
from cache.store import FeatureCache
from cache.writer import writing_lock
from tests.support.packs import everything, frames, write_emotion2vec
from tests.support.toys import commit, create, plan_for, utterances_named


def foreign(folder: Path, names: str, *, seed: int = 0) -> Pack:
    """Features of each letter, as many rows as its position in the alphabet."""
    arrays = {name: frames(ord(name) - 96, seed=seed) for name in names}
    return open_pack(write_emotion2vec(folder, arrays))


def own(folder: Path, names: str, committed: list[int], *, weights: str = "w") -> Pack:
    """A pack of mmer with one stream ``enc``, two rows for each letter."""
    folder.mkdir()
    plan = plan_for([2] * len(names))
    plan = replace(plan, spec=replace(plan.spec, weights=weights))
    create(folder / "a.h5", utterances_named(names), [plan], enc={"w": np.ones(2)})
    commit(folder / "a.h5", plan, committed)
    export_pack(open_cache(folder / "a.h5"), folder / "pack")
    return open_pack(folder / "pack")


def started(folder: Path, arrays: dict[str, npt.NDArray[Any]], *, name: str = "enc", **changed: str) -> Pack:
    """A pack of mmer with one utterance and weights that initialize heads."""
    folder.mkdir()
    plan = plan_for([2], name=name)
    plan = replace(plan, spec=replace(plan.spec, **changed))  # type: ignore[arg-type]
    create(folder / "a.h5", utterances_named("a"), [plan], enc=arrays)
    commit(folder / "a.h5", plan, [0])
    export_pack(open_cache(folder / "a.h5"), folder / "pack")
    return open_pack(folder / "pack")


def test_rows_are_joined_by_id(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    before = everything(toy[0])
    done = import_pack(foreign(tmp_path / "feats", "cbad"), toy[0])
    cache = FeatureCache(toy[0])
    assert (done.created, done.written, done.left_out) == (False, {"emotion2vec": 4}, [])
    for index, name in enumerate("abcd"):
        np.testing.assert_array_equal(cache.stream("emotion2vec").read(index), frames(ord(name) - 96))
    after = everything(toy[0])
    assert after["streams"].pop("emotion2vec")
    assert after == before


def test_utterances_that_the_pack_lacks_fail_with_its_name(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    import_pack(foreign(tmp_path / "feats", "db"), toy[0])
    stream = FeatureCache(toy[0]).stream("emotion2vec")
    assert stream.state.tolist() == [FAILED, COMMITTED, FAILED, COMMITTED]
    assert stream.reason(0) == "not in the pack feats"


def test_utterances_that_the_file_lacks_stop_it_unless_left_out(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    before = toy[0].read_bytes()
    pack = foreign(tmp_path / "feats", "daxy")
    with pytest.raises(
        MmerError, match=r"does not contain 2 of 4 utterances of .*first: x\); leave them out with --partial"
    ):
        import_pack(pack, toy[0])
    with pytest.raises(MmerError, match=r"does not contain 2 of 2 .*choose the file of its corpus"):
        import_pack(foreign(tmp_path / "others", "xy"), toy[0], partial=True)
    assert toy[0].read_bytes() == before
    assert import_pack(pack, toy[0], partial=True).left_out == ["x", "y"]
    assert FeatureCache(toy[0]).stream("emotion2vec").state.tolist() == [COMMITTED, FAILED, FAILED, COMMITTED]


def test_another_key_under_one_name_is_refused_or_replaced(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    import_pack(foreign(tmp_path / "one", "abcd"), toy[0])
    other = foreign(tmp_path / "two", "abcd", seed=1)
    before = toy[0].read_bytes()
    message = r"computed differently \(preprocessing.values .*--replace .*--stream emotion2vec-2=emotion2vec keeps both"
    with pytest.raises(MmerError, match=message):
        import_pack(other, toy[0])
    assert toy[0].read_bytes() == before
    import_pack(other, toy[0], streams=["emotion2vec-2=emotion2vec"])
    import_pack(other, toy[0], replace=True)
    cache = FeatureCache(toy[0])
    assert list(cache.streams) == ["emotion2vec", "emotion2vec-2", "enc"]
    for name in ("emotion2vec", "emotion2vec-2"):
        np.testing.assert_array_equal(cache.stream(name).read(2), frames(3, seed=1))


def test_the_same_pack_twice_changes_nothing(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    pack = foreign(tmp_path / "feats", "abd")
    import_pack(pack, toy[0])
    before = everything(toy[0])
    assert import_pack(pack, toy[0]).written == {"emotion2vec": 0}
    assert everything(toy[0]) == before


def test_a_stream_of_the_same_key_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    import_pack(own(tmp_path / "one", "abc", [0]), path)
    done = import_pack(own(tmp_path / "two", "cba", [0, 1, 2]), path)
    assert done.written == {"enc": 2}
    assert FeatureCache(path).stream("enc").state.tolist() == [COMMITTED] * 3
    digests = [bytes(digest) for digest in FeatureCache(path).stream("enc").input_digest]
    assert [digest[14] for digest in digests] == [0, 1, 0]  # a of the first pack, b and c of the second
    assert FeatureCache(path).weights("enc")["w"].tolist() == [1, 1]


def test_weights_of_another_encoder_are_not_mixed(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    plan = plan_for([2, 2, 2, 2], name="enc.codes", dtype="uint16")
    create(tmp_path / "b.h5", utterances_named("abcd"), [plan], enc={"w": np.ones(7)})
    commit(tmp_path / "b.h5", plan, range(4))
    export_pack(open_cache(tmp_path / "b.h5"), tmp_path / "pack")
    pack = open_pack(tmp_path / "pack")
    before = toy[0].read_bytes()
    with pytest.raises(MmerError, match=r"comes with other weights of enc than .*--stream NEW=enc.codes"):
        import_pack(pack, toy[0])
    assert toy[0].read_bytes() == before
    import_pack(pack, toy[0], streams=["b.codes=enc.codes"])
    cache = FeatureCache(toy[0])
    assert (len(cache.weights("enc")["w"]), len(cache.weights("b")["w"])) == (3, 7)


@pytest.mark.parametrize("counts", [(5, 2), (2, 5)])
def test_start_layers_of_another_amount_are_united(tmp_path: Path, counts: tuple[int, int]) -> None:
    for number, count in enumerate(counts):
        layers = {f"l{layer}": np.full(2, layer) for layer in range(count)}
        import_pack(started(tmp_path / str(number), {"heads": np.ones(1), **layers}), tmp_path / "out.h5")
    held = FeatureCache(tmp_path / "out.h5").weights("enc")
    assert {name: values.tolist() for name, values in held.items()} == {
        "heads": [1],
        **{f"l{layer}": [layer, layer] for layer in range(5)},
    }


def test_start_layers_that_contradict_are_refused_whatever_their_amount(tmp_path: Path) -> None:
    import_pack(started(tmp_path / "one", {"l0": np.ones(2), "l1": np.ones(2)}), tmp_path / "out.h5")
    with pytest.raises(MmerError, match="comes with other weights of enc than"):
        import_pack(started(tmp_path / "two", {"l0": np.zeros(2)}), tmp_path / "out.h5")


@pytest.mark.parametrize("changed", [{"source": "c/d"}, {"revision": "2"}, {"weights": "v"}])
def test_start_layers_of_two_encoders_are_not_united_even_if_nothing_contradicts(
    tmp_path: Path, changed: dict[str, str]
) -> None:
    import_pack(started(tmp_path / "one", {"l0": np.ones(2)}), tmp_path / "out.h5")
    before = (tmp_path / "out.h5").read_bytes()
    other = started(tmp_path / "two", {"l1": np.ones(2)}, name="enc@4", **changed)
    with pytest.raises(MmerError, match=r"enc@4 of .* comes with other weights of enc than .*--stream NEW=enc@4"):
        import_pack(other, tmp_path / "out.h5")
    assert (tmp_path / "out.h5").read_bytes() == before
    import_pack(started(tmp_path / "three", {"l1": np.ones(2)}, name="enc@4"), tmp_path / "out.h5")
    assert sorted(FeatureCache(tmp_path / "out.h5").weights("enc")) == ["l0", "l1"]


def test_streams_of_a_pack_that_would_share_a_name_do_not_share_weights(tmp_path: Path) -> None:
    plans = [plan_for([2], name=name) for name in ("one", "two")]
    plans[1] = replace(plans[1], spec=replace(plans[1].spec, source="c/d"))
    create(tmp_path / "a.h5", utterances_named("a"), plans, one={"l0": np.ones(2)}, two={"l1": np.ones(2)})
    export_pack(open_cache(tmp_path / "a.h5"), tmp_path / "pack")
    with pytest.raises(MmerError, match=r"enc@4 of .* comes with other weights of enc"):
        import_pack(open_pack(tmp_path / "pack"), tmp_path / "out.h5", streams=["enc=one", "enc@4=two"])


def test_a_replaced_stream_takes_its_weights_along(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    pack = own(tmp_path / "one", "abcd", [0, 1, 2, 3], weights="other")
    import_pack(pack, toy[0], replace=True)
    assert FeatureCache(toy[0]).weights("enc")["w"].tolist() == [1, 1]
    foreign_pack = foreign(tmp_path / "feats", "abcd")
    import_pack(foreign_pack, toy[0], streams=["enc=emotion2vec"], replace=True)
    assert FeatureCache(toy[0]).weights("enc") == {}


def test_names_of_streams_are_checked(tmp_path: Path) -> None:
    pack = foreign(tmp_path / "feats", "ab")
    for requested, message in [
        (["nope"], "has no stream nope; it has: emotion2vec"),
        (["new=nope"], "has no stream nope"),
        (["a/b=emotion2vec"], "--stream a/b=emotion2vec: .*hold no slash"),
        (["=emotion2vec"], "must be non-empty"),
        (["emotion2vec", "emotion2vec=emotion2vec"], "two streams would have the name emotion2vec"),
    ]:
        with pytest.raises(MmerError, match=message):
            import_pack(pack, tmp_path / "a.h5", streams=requested)
    assert not (tmp_path / "a.h5").exists()


def test_the_file_is_one_of_this_corpus_and_nobody_writes_to_it(toy: tuple[Path, StreamPlan], tmp_path: Path) -> None:
    pack = foreign(tmp_path / "feats", "abcd")
    with pytest.raises(MmerError, match="holds the corpus toy, not iemocap"):
        import_pack(pack, toy[0], corpus="iemocap")
    with pytest.raises(MmerError, match="is a pattern of files; import into a single file"):
        import_pack(pack, tmp_path / "a-*.h5")
    with writing_lock(toy[0]), pytest.raises(CacheBusy, match="another run is writing"):
        import_pack(pack, toy[0])
