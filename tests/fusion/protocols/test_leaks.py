from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cache.errors import MmerError
from cache.layout import create_file, read_layout
from cache.store import FeatureCache
from cache.stream import StreamSpec
from cache.utterance import Utterance
from fusion.protocols.catalog import check_history_streams, make_folds
from fusion.protocols.coverage import drop_uncovered
from fusion.protocols.folds import Fold
from fusion.protocols.leaks import (
    check_classes,
    check_dev_speakers,
    check_dialogues,
    check_encoders,
    check_speakers,
    check_subsets,
    choose_streams,
    note_classes,
    note_transcripts,
    note_twins,
)
from fusion.protocols.split import split_cache
from tests.support.rosters import actors, by_label, dyads, fold_of, four_classes, show
from tests.support.toys import commit, plan_for


def spec(name: str = "enc", history: int = 0, seen: Mapping[str, object] | None = None) -> StreamSpec:
    return StreamSpec(
        name=name,
        role="text",
        source="a",
        shape=(4,),
        dtype="float16",
        preprocessing={"history": history} if history else {},
        trained_on=seen or {},
    )


def turns(speaker: str = " " * 6, dialogue: str = " " * 6) -> list[Utterance]:
    """Returns six utterances, two for each subset; each letter is the speaker or the dialogue of one of them."""
    return [
        Utterance(id=f"u{index}", speaker=speaker[index].strip(), dialogue=dialogue[index].strip())
        for index in range(6)
    ]


FOLD = fold_of([0, 1], [2, 3], [4, 5])


def test_a_speaker_of_test_may_be_in_neither_other_part() -> None:
    check_speakers(FOLD, turns("aabbcc"))
    check_speakers(FOLD, turns("      "))
    with pytest.raises(MmerError, match=r"fold 1: test shares speaker a with train \(u5, u1\)"):
        check_speakers(FOLD, turns("aabbca"))
    with pytest.raises(MmerError, match=r"fold 1: test shares speaker b, c with dev \(u5, u3\)"):
        check_speakers(FOLD, turns("aacbcb"))


def test_train_and_dev_may_share_neither_speaker_nor_dialogue_where_that_is_promised() -> None:
    check_dev_speakers(FOLD, turns("aabbaa"))
    check_dialogues(FOLD, turns(dialogue="a b aa"))
    with pytest.raises(MmerError, match="dev shares speaker a with train"):
        check_dev_speakers(FOLD, turns("aaabcc"))
    with pytest.raises(MmerError, match="dev shares dialogue b with train"):
        check_dialogues(FOLD, turns(dialogue="abbccc"))


def test_a_part_may_be_neither_empty_nor_overlap() -> None:
    with pytest.raises(MmerError, match="fold 1 has no dev utterance"):
        check_subsets(fold_of([0], [], [1]))
    with pytest.raises(MmerError, match="fold 1 has an utterance in two subsets"):
        check_subsets(fold_of([0, 1], [2], [1]))


def test_train_and_test_need_every_class_and_dev_does_not() -> None:
    classes = np.array([0, 1, 0, 0, 1, 0])
    check_classes([FOLD], classes, ("sad", "glad"))
    with pytest.raises(MmerError, match="fold 1 has no train utterance of class mad; choose another --protocol, or"):
        check_classes([FOLD], classes, ("sad", "glad", "mad"))


def test_a_class_may_lack_in_one_test_subset_but_not_in_all() -> None:
    classes, names = np.array([0, 1, 0, 1, 0, 0]), ("sad", "glad")
    first, second = fold_of([0, 1], [2], [4, 5], "1"), fold_of([0, 1], [4, 5], [2, 3], "2")
    check_classes([first, second], classes, names)
    assert note_classes([first, second], classes, names) == [
        "fold 1: test has no utterance of class glad; its UA and M-F1 are means over the other classes"
    ]
    with pytest.raises(MmerError, match="fold 1 has no test utterance of class glad; choose another --protocol"):
        check_classes([first], classes, names)
    with pytest.raises(MmerError, match="no fold has a test utterance of class glad"):
        check_classes([first, first], classes, names)
    folds = [fold_of([0, 1], [2], [4, 5], str(number)) for number in range(7)]
    assert (
        note_classes(folds, classes, names)[-1]
        == "2 more test subsets lack a class; pooled scores are over all classes"
    )


def test_history_is_refused_under_random5_and_where_dialogues_cross() -> None:
    utterances = dyads()
    classes = four_classes(utterances)
    specs = [spec("plain"), spec("words+history4", history=4)]
    for protocol in ("session", "session5", "actor5"):
        check_history_streams(make_folds(utterances, classes, protocol, 0), utterances, specs, protocol)
    for protocol, match in (
        ("random5", "protocol random5 splits dialogues, and words.history4 contains previous turns"),
        ("speaker", "share"),
    ):
        folds = make_folds(utterances, classes, protocol, 0)
        check_history_streams(folds, utterances, specs[:1], protocol)
        with pytest.raises(MmerError, match=match):
            check_history_streams(folds, utterances, specs, protocol)


def test_history_passes_under_speaker_where_everybody_speaks_alone() -> None:
    utterances = [replace(turn, dialogue=f"{turn.dialogue}{turn.speaker}") for turn in dyads()]
    folds = make_folds(utterances, four_classes(utterances), "speaker", 0)
    check_history_streams(folds, utterances, [spec(history=4)], "speaker")


SEEN = {"corpus": "iemocap", "speakers": ["Ses01F", "Ses01M"], "dialogues": ["Ses01_d0"]}


def test_an_encoder_that_has_seen_test_speakers_is_refused_unless_allowed() -> None:
    utterances = dyads()
    first, second = make_folds(utterances, four_classes(utterances), "session", 0)[:2]
    specs = [spec("frozen"), spec("tuned", seen=SEEN)]
    message = "fold 1: the encoder of tuned has seen dialogue Ses01_d0 of test"
    with pytest.raises(MmerError, match=f"{message}; choose another encoder, or pass --allow-leak"):
        check_encoders(first, utterances, specs, "iemocap")
    assert check_encoders(first, utterances, specs, "iemocap", allow_leak=True) == [message]
    assert check_encoders(second, utterances, specs, "iemocap") == []
    assert check_encoders(first, utterances, specs, "meld") == []


@pytest.mark.parametrize(
    ("trained_on", "message"),
    [
        ({"speakers": ["Ses01M"], "dialogues": []}, "has seen speaker Ses01M of test"),
        ({"speakers": ["Ses01M"], "dialogues": ["elsewhere"]}, "has seen speaker Ses01M of test"),
        ({"corpus": "IEMOCAP"}, "was trained on unknown speakers of iemocap"),
    ],
)
def test_speakers_alone_are_enough_and_silence_is_no_excuse(trained_on: dict[str, object], message: str) -> None:
    utterances = dyads()
    fold = make_folds(utterances, four_classes(utterances), "session", 0)[0]
    with pytest.raises(MmerError, match=message):
        check_encoders(fold, utterances, [spec(seen=trained_on)], "iemocap")


def test_speakers_that_the_publisher_shares_do_not_condemn_an_encoder_that_names_its_dialogues() -> None:
    utterances = show()
    (fold,) = make_folds(utterances, by_label(utterances), "official", 0)
    honest = {"speakers": ["Ross", "Monica"], "dialogues": ["train_dia0", "dev_dia1"]}
    assert check_encoders(fold, utterances, [spec(seen=honest)], "meld") == []
    leaks: list[Mapping[str, object]] = [{"speakers": ["Ross"]}, {**honest, "dialogues": ["test_dia1"]}]
    for leaking in leaks:
        with pytest.raises(MmerError, match="has seen"):
            check_encoders(fold, utterances, [spec(seen=leaking)], "meld")


def written(path: Path, utterances: list[Utterance], failed: dict[int, str], corpus: str) -> FeatureCache:
    """Writes a cache with a speech stream ``enc``; utterances count as committed unless they failed."""
    plan = plan_for([0 if index in failed else 1 for index in range(len(utterances))], failures=failed)
    header = {"mmer_version": "0", "created": "2026", "corpus": {"name": corpus, "root": "."}}
    create_file(path, header=header, utterances=utterances, plans=[plan], weights={})
    commit(path, plan, [index for index in range(len(utterances)) if index not in failed])
    return FeatureCache(path)


def test_a_gap_in_test_is_an_error_and_with_allow_missing_a_denominator(tmp_path: Path) -> None:
    cache = written(tmp_path / "a.h5", turns("aabbcc"), {1: "too long", 5: "zero bytes"}, "mine")
    message = (
        r"fold 1: 1 of 2 test utterances have no features \(u5: no enc, zero bytes\); run mmer-featurize again, or"
    )
    with pytest.raises(MmerError, match=message):
        drop_uncovered(FOLD, cache, ["enc"])
    covered = drop_uncovered(FOLD, cache, ["enc"], allow_missing=True)
    assert [subset.tolist() for subset in covered.fold.subsets.values()] == [[0], [2, 3], [4]]
    assert (covered.scored, covered.total) == (1, 2)
    assert covered.denominator == "fold 1: scored on 1 of 2 test utterances"
    assert covered.notes == [
        "fold 1: 1 of 2 train utterances are left out, they have no features (u1: no enc, too long)",
        "fold 1: 1 of 2 test utterances are left out, they have no features (u5: no enc, zero bytes)",
    ]


def test_a_stream_of_training_only_is_not_asked_of_dev_and_test(tmp_path: Path) -> None:
    cache = written(tmp_path / "a.h5", turns("aabbcc"), {1: "no letters", 3: "no letters", 5: "no letters"}, "x")
    covered = drop_uncovered(FOLD, cache, [], training_streams=["enc"])
    assert [subset.tolist() for subset in covered.fold.subsets.values()] == [[0], [2, 3], [4, 5]]


def test_published_broken_clips_need_no_flag_but_show_in_the_denominator(tmp_path: Path) -> None:
    utterances = turns("aabbcc")
    utterances[5] = replace(utterances[5], id="test_dia38_utt4")
    cache = written(tmp_path / "a.h5", utterances, {5: "305 s"}, "meld")
    assert drop_uncovered(FOLD, cache, ["enc"]).denominator == "fold 1: scored on 1 of 2 test utterances"
    with pytest.raises(MmerError, match="test_dia38_utt4"):
        drop_uncovered(FOLD, written(tmp_path / "b.h5", utterances, {5: "305 s"}, "mine"), ["enc"])


def test_identical_recordings_on_both_sides_are_noted(tmp_path: Path) -> None:
    utterances = actors()
    cache = written(tmp_path / "a.h5", utterances, {}, "ravdess")
    assert split_cache(cache, streams=["enc"], labels="c=calm,h=happy,s=sad").notes == []
    twins = {0: "calm-0-01", len(utterances) - 1: "sad-1-24"}
    region = read_layout(cache.path).streams["enc"].regions["input_digest"]
    with cache.path.open("rb+") as file:
        for index in twins:
            file.seek(region.offset + 16 * index)
            file.write(b"the same samples")
    notes = split_cache(cache, streams=["enc"], labels="c=calm,h=happy,s=sad").notes
    assert notes[0] == "fold 1: identical recordings in test and dev: calm-0-01 = sad-1-24"
    assert note_twins(FOLD, cache.ids, []) == []


def test_what_train_and_test_both_say_is_counted_where_text_is_read() -> None:
    texts = [
        "[SIGH] I said: no more of it!",
        "no more",
        "i said no more of it",
        "No more.",
        "nothing of the kind at all",
        "you don't say so",
        "You don\u2019t say so.",
        "you don't say so often",
        "You don\u2019t say so often.",
    ]
    utterances = [Utterance(id=str(index), text=text) for index, text in enumerate([*texts, ""])]
    fold = Fold(name="1", train=np.array([2, 5, 7]), dev=np.array([3]), test=np.array([0, 1, 4, 6, 8, 9]))
    sound = replace(spec(), role="audio")
    assert note_transcripts(fold, utterances, [sound, spec()]) == [
        "fold 1: 2 of 6 test utterances have a transcript of 5 words or more that train or dev has too"
    ]
    assert note_transcripts(fold, utterances, [sound]) == []
    apart = Fold(name="1", train=np.array([4]), dev=np.array([3]), test=np.array([0, 1]))
    assert note_transcripts(apart, utterances, [spec()]) == []


def test_a_whole_cache_is_split_with_every_check(tmp_path: Path) -> None:
    utterances = dyads()
    cache = written(tmp_path / "a.h5", utterances, {0: "too long"}, "iemocap")
    with pytest.raises(MmerError, match="fold 1: 1 of 60 test utterances have no features"):
        split_cache(cache, streams=["enc"])
    split = split_cache(cache, streams=["enc"], allow_missing=True)
    assert (split.protocol, split.labels.name, split.totals["1"]) == ("session", "iemocap4", 60)
    assert [len(fold.test) for fold in split.folds] == [59, 60, 60, 60, 60]
    assert split.promise.startswith("session: leave one session out")
    assert any("train utterances are left out" in note for note in split.notes)


def test_a_public_checkpoint_that_saw_the_corpus_is_known() -> None:
    told, fold = turns("aabbcc"), Fold(name="1", train=np.array([0, 1]), dev=np.array([2, 3]), test=np.array([4, 5]))
    known = replace(spec(), source="superb/hubert-large-superb-er")
    assert check_encoders(fold, told, [known], "ravdess") == []
    with pytest.raises(MmerError, match=r"the encoder of enc \(superb/hubert-large-superb-er\) was trained on iemocap"):
        check_encoders(fold, told, [known], "iemocap")
    (note,) = check_encoders(fold, told, [known], "IEMOCAP", allow_leak=True)
    assert "speakers unknown to mmer" in note


def test_of_several_streams_the_one_that_saw_least_is_chosen() -> None:
    told, fold = turns("aabbcc"), Fold(name="1", train=np.array([0, 1]), dev=np.array([2, 3]), test=np.array([4, 5]))
    streams = [
        spec("x", seen={"speakers": ["c"]}),
        spec("y", seen={"speakers": ["a"], "fold": "2"}),
        spec("z", seen={"speakers": ["a"], "fold": "1"}),
    ]
    assert choose_streams(fold, told, {"audio": streams}, "toy") == ({"audio": "z"}, [])
    assert choose_streams(fold, told, {"audio": streams[:2]}, "toy") == ({"audio": "y"}, [])
    with pytest.raises(MmerError, match="the encoder of x has seen speaker c of test"):
        choose_streams(fold, told, {"audio": streams[:1]}, "toy")
    chosen, notes = choose_streams(fold, told, {"audio": streams[:1]}, "toy", allow_leak=True)
    assert chosen == {"audio": "x"}
    assert len(notes) == 1
