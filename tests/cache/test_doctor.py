from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path

from cache.doctor import Finding, examine
from cache.layout import StreamPlan, create_file, read_layout
from cache.store import FeatureCache
from cache.utterance import Utterance
from tests.support.toys import commit, plan_for

# published counts (docs/decisions.md#class-counts); happy and excited are divided arbitrarily
IEMOCAP = {
    "1": {"ang": 229, "hap": 135, "exc": 143, "neu": 384, "sad": 194, "xxx": 7},
    "2": {"ang": 137, "hap": 117, "exc": 210, "neu": 362, "sad": 197},
    "3": {"ang": 240, "hap": 135, "exc": 151, "neu": 320, "sad": 305, "fru": 9},
    "4": {"ang": 327, "hap": 65, "exc": 238, "neu": 258, "sad": 143},
    "5": {"ang": 170, "hap": 143, "exc": 299, "neu": 384, "sad": 245},
}


def examined(tmp_path: Path, corpus: str, utterances: list[Utterance]) -> dict[str, Finding]:
    header = {"mmer_version": "0", "created": "2026", "corpus": {"name": corpus}}
    plan = plan_for([1] * len(utterances))
    create_file(tmp_path / "a.h5", header=header, utterances=utterances, plans=[plan], weights={})
    return {finding.what: finding for finding in examine(FeatureCache(tmp_path / "a.h5"))}


def iemocap() -> list[Utterance]:
    return [
        Utterance(id=f"{session}-{label}-{index}", session=session, label=label)
        for session, labels in IEMOCAP.items()
        for label, count in labels.items()
        for index in range(count)
    ]


def test_iemocap_as_published_does_not_differ(tmp_path: Path) -> None:
    found = examined(tmp_path, "iemocap", iemocap())
    assert found["four classes (ang, hap + exc, neu, sad)"].found == 5531
    assert found["session 3, four classes"].found == 1151
    assert found["session 5, hap"].found == 442
    assert [name for name, finding in found.items() if finding.differs] == ["turns", "committed in enc"]


def test_a_lost_turn_of_iemocap_shows_in_its_session_and_class(tmp_path: Path) -> None:
    found = examined(tmp_path, "iemocap", iemocap()[1:])
    differing = {
        name: finding.found
        for name, finding in found.items()
        if finding.differs and name.startswith(("session", "four"))
    }
    assert differing == {
        "four classes (ang, hap + exc, neu, sad)": 5530,
        "session 1, four classes": 1084,
        "session 1, ang": 228,
    }


def ravdess(actors: int = 24) -> list[Utterance]:
    labels = ["calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
    per_actor = [*repeat("neutral", 4), *chain.from_iterable(repeat(label, 8) for label in labels)]
    return [
        Utterance(id=f"{actor}-{index}", speaker=f"{actor:02}", label=label, channel="speech", duration_s=3.5)
        for actor in range(1, actors + 1)
        for index, label in enumerate(per_actor)
    ]


def test_ravdess_as_published_does_not_differ(tmp_path: Path) -> None:
    found = examined(tmp_path, "ravdess", ravdess())
    assert found["speech recordings"] == Finding("speech recordings", 1440, 1440)
    assert [name for name, finding in found.items() if finding.differs] == ["committed in enc"]


def test_an_actor_with_too_few_recordings_is_named(tmp_path: Path) -> None:
    found = examined(tmp_path, "ravdess", ravdess()[:-1])
    assert found["speech recordings"].differs
    assert found["speech recordings"].detail == "actor 24 has 59"


MELD = [  # dialogues, emotions and sentiments of each published split
    ("train", 1038, [4710, 1205, 268, 683, 1743, 271, 1109], [4710, 2334, 2945]),
    ("dev", 114, [470, 150, 40, 111, 163, 22, 153], [470, 233, 406]),
    ("test", 280, [1256, 281, 50, 208, 402, 68, 345], [1256, 521, 833]),
]
EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
SENTIMENTS = ("neutral", "positive", "negative")


def meld() -> list[Utterance]:
    return [
        Utterance(
            id=f"{split}_{index}", split=split, dialogue=f"{split}_dia{index % dialogues}", label=label, sentiment=mood
        )
        for split, dialogues, emotions, moods in MELD
        for index, (label, mood) in enumerate(
            zip(
                chain.from_iterable(map(repeat, EMOTIONS, emotions)),
                chain.from_iterable(map(repeat, SENTIMENTS, moods)),
                strict=True,
            )
        )
    ]


def test_meld_as_published_does_not_differ(tmp_path: Path) -> None:
    found = examined(tmp_path, "meld", meld())
    assert [found[f"{split}, utterances"].found for split in ("train", "dev", "test")] == [9989, 1109, 2610]
    assert found["train, dialogues"].detail.startswith("the paper prints 1,039")
    assert [name for name, finding in found.items() if finding.differs] == ["committed in enc"]


def test_a_lost_turn_of_meld_shows_in_its_split_emotion_and_sentiment(tmp_path: Path) -> None:
    found = examined(tmp_path, "meld", meld()[:-1])
    assert {name: finding.found for name, finding in found.items() if finding.differs} == {
        "utterances": 13_707,
        "test, utterances": 2609,
        "test, anger": 344,
        "test, sentiment negative": 832,
        "committed in enc": 0,
    }


def test_clips_known_to_be_broken_are_named_and_not_expected(tmp_path: Path) -> None:
    names = ["train_dia0_utt0", "train_dia125_utt3", "dev_dia110_utt7", "test_dia38_utt4"]
    speech = plan_for([1, 0, 0, 1], failures={1: "truncated", 2: "missing"})
    text = plan_for([1, 0, 1, 1], failures={1: "too long"})
    text = replace(text, spec=replace(text.spec, name="words", role="text"))
    header = {"mmer_version": "0", "created": "2026", "corpus": {"name": "meld"}}
    utterances = [Utterance(id=name) for name in names]
    create_file(tmp_path / "a.h5", header=header, utterances=utterances, plans=[speech, text], weights={})
    commit(tmp_path / "a.h5", speech, [0, 3])
    found = {finding.what: finding for finding in examine(FeatureCache(tmp_path / "a.h5"))}
    assert found["known broken clips without features"] == Finding(
        "known broken clips without features",
        2,
        None,
        "train_dia125_utt3: the mp4 file is corrupt; dev_dia110_utt7: the clip was never released",
    )
    assert found["committed in enc"] == Finding("committed in enc", 2, 2)
    assert found["committed in words"].expected == 4  # a transcript is not broken by its clip


def test_other_corpora_are_counted_without_a_verdict(tmp_path: Path) -> None:
    utterances = [Utterance(id="a", label="x", duration_s=31.0), Utterance(id="b", duration_s=0.1)]
    found = examined(tmp_path, "manifest", utterances)
    assert (found["label 'x'"].found, found["no label"].found) == (1, 1)
    assert found["longer than 30 s"].detail == "a 31.0 s"
    assert found["shorter than 0.4 s"].detail == "b 0.10 s"
    assert not any(finding.differs for name, finding in found.items() if name != "committed in enc")


def test_twin_recordings_are_named(toy: tuple[Path, StreamPlan]) -> None:
    path, plan = toy
    commit(path, plan, [0])
    assert not [
        finding for finding in examine(FeatureCache(path)) if finding.what.startswith("groups") and finding.found
    ]
    give_sound(path, plan, 0, to=3)
    (twins,) = [finding for finding in examine(FeatureCache(path)) if finding.what.startswith("groups")]
    assert (twins.found, twins.detail) == (1, "a = d")


def give_sound(path: Path, plan: StreamPlan, source: int, *, to: int) -> None:
    """Writes the digest of the sound of an utterance for another one."""
    region = read_layout(path).streams[plan.spec.name].regions["input_digest"]
    with path.open("rb+") as file:
        file.seek(region.offset + source * 16)
        digest = file.read(16)
        file.seek(region.offset + to * 16)
        file.write(digest)


def test_every_group_of_twins_is_named_and_those_across_speakers_again(tmp_path: Path) -> None:
    count = 16
    utterances = [
        Utterance(id=f"u{index:02}", speaker="AB"[index == 15], split="train", label="x" if index < 14 else "y")
        for index in range(count)
    ]
    plan = plan_for([1] * count)
    header = {"mmer_version": "0", "created": "2026", "corpus": {"name": "own"}}
    create_file(tmp_path / "a.h5", header=header, utterances=utterances, plans=[plan], weights={})
    commit(tmp_path / "a.h5", plan, range(count))
    for first in range(0, count, 2):
        give_sound(tmp_path / "a.h5", plan, first, to=first + 1)
    found = {finding.what: finding for finding in examine(FeatureCache(tmp_path / "a.h5"))}
    groups = found["groups of identical recordings"]
    assert groups.found == 8
    assert groups.detail.split("; ")[:7] == [f"u{first:02} = u{first + 1:02}" for first in range(0, 14, 2)]
    assert groups.detail.endswith("; u14 = u15 (speakers A, B)")
    across = found["identical recordings of several speakers"]
    assert (across.found, across.detail) == (1, "u14 = u15 (speakers A, B)")
    assert "identical recordings of several splits" not in found


def savee() -> list[Utterance]:
    labels = ["anger", "disgust", "fear", "happiness", "neutral", "neutral", "sadness", "surprise"]
    return [
        Utterance(id=f"{speaker}_{label}{index}", speaker=speaker, label=label)
        for speaker in ("DC", "JE", "JK", "KL")
        for index, label in enumerate(labels * 15)
    ]


def test_a_corpus_with_published_counts_does_not_differ_as_published(tmp_path: Path) -> None:
    found = examined(tmp_path, "savee", savee())
    assert found["speakers"] == Finding("speakers", 4, 4)
    assert found["label 'neutral'"] == Finding("label 'neutral'", 120, 120)
    assert [name for name, finding in found.items() if finding.differs] == ["committed in enc"]


def test_a_lost_recording_and_an_unknown_label_show(tmp_path: Path) -> None:
    found = examined(tmp_path, "savee", [*savee()[1:-1], Utterance(id="odd", speaker="KL", label="joy")])
    assert found["label 'joy'"] == Finding("label 'joy'", 1, None)
    differing = {name for name, finding in found.items() if finding.differs}
    assert differing == {"utterances", "label 'anger'", "label 'surprise'", "committed in enc"}


def test_the_release_with_the_nearest_count_is_compared(tmp_path: Path) -> None:
    splits = {"Train": 3, "Test1": 2}
    podcast = [Utterance(id=f"{name}{index}", split=name) for name, count in splits.items() for index in range(count)]
    found = examined(tmp_path, "msp-podcast", podcast)
    assert found["utterances"] == Finding("utterances", 5, 151_654, "release 1.11")
    assert found["Test1"] == Finding("Test1", 2, 30_647)
