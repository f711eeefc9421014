import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cache.errors import MmerError
from cache.utterance import Utterance
from fusion.protocols.catalog import make_folds, promise_of, protocol_notes
from fusion.protocols.folds import Fold
from fusion.protocols.own_folds import OWN, OwnFolds, read_own_folds
from tests.support.rosters import actors, by_label, dyads, without


def table(path: Path, rows: Sequence[Sequence[str]], header: str = "id,fold", sign: str = ",") -> str:
    path.write_text("\n".join([header.replace(",", sign), *(sign.join(row) for row in rows), ""]))
    return str(path)


def folds_of(own: OwnFolds, utterances: Sequence[Utterance], seed: int = 0) -> list[Fold]:
    return make_folds(utterances, by_label(utterances), OWN, seed, own_folds=own)


def ids(utterances: Sequence[Utterance], fold: Fold, subset: str) -> set[str]:
    return {utterances[index].id for index in fold.subsets[subset].tolist()}


def test_each_utterance_is_test_in_the_fold_that_it_names(tmp_path: Path) -> None:
    utterances = actors(6)
    rows = [(held.id, str(int(held.speaker) % 3), "note") for held in utterances]
    own = read_own_folds(table(tmp_path / "mine.csv", rows, "id,fold,remark"))
    folds = folds_of(own, utterances)
    assert [fold.name for fold in folds] == ["0", "1", "2"]
    for fold in folds:
        assert ids(utterances, fold, "test") == {name for name, number, _ in rows if number == fold.name}
        assert {utterances[index].speaker for index in fold.dev}.isdisjoint(utterances[i].speaker for i in fold.train)
        assert sum(map(len, fold.subsets.values())) == len(utterances)
    promise = promise_of(OWN, folds, utterances, "mine", own)
    assert promise.startswith(f"3 folds of {tmp_path / 'mine.csv'} (digest {own.digest[:8]}); test shares no speaker")
    assert promise.endswith("dev is whole training speakers: 1 of 4, 25% of the utterances outside test")


def test_subsets_are_taken_as_written_and_several_tests_are_kept_apart(tmp_path: Path) -> None:
    utterances = actors(5)
    subsets = ("Training", "validation", "Test1", "test2", "train")
    rows = [(held.id, subsets[int(held.speaker) - 1]) for held in utterances]
    own = read_own_folds(table(tmp_path / "mine.tsv", rows, "id,subset", "\t"))
    (fold,) = folds_of(own, utterances)
    assert {name: {utterances[index].speaker for index in held} for name, held in fold.test_parts.items()} == {
        "test1": {"03"},
        "test2": {"04"},
    }
    assert sorted(np.concatenate(list(fold.test_parts.values())).tolist()) == fold.test.tolist()
    assert {utterances[index].speaker for index in fold.dev} == {"02"}
    assert promise_of(OWN, [fold], utterances, "mine", own).endswith("dev is that of the file")


def test_folds_that_share_speakers_say_so(tmp_path: Path) -> None:
    utterances = dyads(sessions=2)
    rows = [(held.id, str(index % 5 % 2)) for index, held in enumerate(utterances)]
    own = read_own_folds(table(tmp_path / "mine.csv", rows))
    folds = folds_of(own, utterances)
    assert (
        "; not speaker-independent; test shares dialogues with train or dev; dev is a tenth of the training dialogues"
        in (promise_of(OWN, folds, utterances, "mine", own))
    )
    notes = protocol_notes(folds, utterances, by_label(utterances), tuple("abcdef"), OWN, own_folds=own)
    assert "fold 0: 4 of 4 test speakers are in train or dev" in notes


def test_the_digest_is_of_the_folds_alone(tmp_path: Path) -> None:
    rows = [("a", "1"), ("b", "2"), ("c", "2")]
    first = read_own_folds(table(tmp_path / "one.csv", rows))
    again = read_own_folds(
        table(tmp_path / "two.csv", [(name, fold, "x") for name, fold in rows[::-1]], "id,fold,y", ";")
    )
    other = read_own_folds(table(tmp_path / "three.csv", [("a", "1"), ("b", "1"), ("c", "2")]))
    assert first.digest == again.digest != other.digest


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("name,fold", [("a", "1")], "the columns are name, fold; expected the columns id,fold or id,fold,subset"),
        ("id,fold", [("a", "1"), ("b", "2"), ("a", "2")], r"line 4: id a occurs twice \(first in line 2\); keep one"),
        ("id,fold,subset", [("a", "1", "test"), ("a", "1", "train")], "line 3: id a occurs twice in fold 1"),
        ("id,fold,subset", [("a", "1", "held-out")], "line 2: unknown subset 'held-out'; allowed: train, dev, test"),
        ("id,fold,subset", [("a", "1", "train")], "fold 1 has no test utterance; every fold needs some"),
        ("id,fold,subset", [("a", "1", "test")], "fold 1 has no train utterance"),
        ("id,fold", [("a", "1"), ("b", "")], "line 3: the cell of fold is empty"),
        ("id,fold", [("a", "1"), ("b", "1")], "all ids are in fold 1, none is left for train; name two folds"),
        ("id,fold", [], "has no row below its header"),
    ],
)
def test_a_table_that_is_no_table_of_folds_is_one_line(
    tmp_path: Path, header: str, rows: list[tuple[str, ...]], message: str
) -> None:
    with pytest.raises(MmerError, match=message) as error:
        read_own_folds(table(tmp_path / "mine.csv", rows, header))
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"cannot read the folds .*none.csv \(No such file or directory\)"):
        read_own_folds(str(tmp_path / "none.csv"))
    (tmp_path / "latin.csv").write_bytes("id,fold\nÿ,1".encode("latin-1"))
    with pytest.raises(MmerError, match=r"cannot read the folds .* expected a UTF-8 table with id,fold"):
        read_own_folds(str(tmp_path / "latin.csv"))


def test_unknown_ids_are_an_error_and_utterances_without_a_fold_a_note(tmp_path: Path) -> None:
    own = read_own_folds(table(tmp_path / "mine.csv", [("a", "1"), ("b", "2"), ("c", "2")]))
    with pytest.raises(MmerError, match=r"mine.csv: 1 of 3 ids are not in the cache \(b\); remove these rows"):
        own.check_ids(["a", "c"])
    (note,) = own.check_ids(["a", "b", "c", "d"])
    assert note.startswith("1 of 4 utterances of the cache are in no fold of ")
    assert own.check_ids(["a", "b", "c"]) == []


def test_a_fold_that_the_label_set_empties_is_an_error(tmp_path: Path) -> None:
    utterances = [*actors(3), Utterance(id="odd", label="other", speaker="09")]
    rows = [(held.id, "2" if held.id == "odd" else "1") for held in utterances]
    own = read_own_folds(table(tmp_path / "mine.csv", rows))
    classes = np.where(np.array([held.label for held in utterances]) == "other", -1, by_label(utterances))
    with pytest.raises(MmerError, match="fold 1 has no train utterance with a class of the label set"):
        make_folds(utterances, classes, OWN, 0, own_folds=own)


def write_emobox(folder: Path, utterances: Sequence[Utterance], *, valid: bool = False) -> str:
    for fold in (1, 2):
        place = folder / f"fold_{fold}"
        place.mkdir(parents=True)
        names: dict[str, list[str]] = {"train": [], "test": [], "valid": []}
        for held in utterances:
            is_test = int(held.speaker) % 2 == fold % 2
            subset = "test" if is_test else "valid" if valid and held.speaker in {"01", "02"} else "train"
            names[subset].append(held.id)
        for subset, members in names.items():
            records = [
                {"key": f"mine-{name}", "dataset": "mine", "wav": f"{name}.wav", "emo": "Sad"} for name in members
            ]
            if records:
                path = place / f"mine_{subset}_fold_{fold}.jsonl"
                path.write_text("".join(json.dumps(record) + "\n" for record in records))
                by_key = {record.pop("key"): record for record in records}
                path.with_suffix(".json").write_text(json.dumps(by_key))
    return f"emobox:{folder}"


@pytest.mark.parametrize("valid", [False, True])
def test_folds_of_emobox_are_read_from_their_json_lines(tmp_path: Path, valid: bool) -> None:
    utterances = actors(8)
    own = read_own_folds(write_emobox(tmp_path, utterances, valid=valid))
    folds = folds_of(own, utterances)
    assert [fold.name for fold in folds] == ["1", "2"]
    for fold in folds:
        assert {int(utterances[index].speaker) % 2 for index in fold.test} == {int(fold.name) % 2}
        dev = {utterances[index].speaker for index in fold.dev}
        assert dev == {"02" if fold.name == "1" else "01"} if valid else len(dev) == 1
    for path in tmp_path.rglob("*.jsonl"):
        path.unlink()
    assert read_own_folds(f"emobox:{tmp_path}").digest == own.digest


def test_a_folder_without_folds_of_emobox_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MmerError, match=r"has no folder fold_1 with files such as .*; expected --folds emobox:EmoBox"):
        read_own_folds(f"emobox:{tmp_path}")


def test_unknown_speakers_are_no_promise(tmp_path: Path) -> None:
    utterances = without("speaker", actors(4))
    own = read_own_folds(table(tmp_path / "mine.csv", [(held.id, held.id[-1]) for held in utterances]))
    assert "not speaker-independent" in promise_of(OWN, folds_of(own, utterances), utterances, "mine", own)
