from itertools import chain, repeat
from pathlib import Path

from cache.doctor import Finding, examine
from cache.layout import StreamPlan, create_file
from cache.store import FeatureCache
from cache.utterance import Utterance
from tests.toys import commit, plan_for

# systems.md 1.5, happy and excited apart in any way
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
        Utterance(id=f"{session}-{label}-{place}", session=session, label=label)
        for session, labels in IEMOCAP.items()
        for label, count in labels.items()
        for place in range(count)
    ]


def test_iemocap_as_published_does_not_differ(tmp_path: Path) -> None:
    found = examined(tmp_path, "iemocap", iemocap())
    assert found["four classes (ang, hap + exc, neu, sad)"].found == 5531
    assert found["session 3, four classes"].found == 1151
    assert found["session 5, hap"].found == 442
    assert [name for name, one in found.items() if one.differs] == ["turns", "committed in enc"]


def test_a_lost_turn_of_iemocap_shows_in_its_session_and_class(tmp_path: Path) -> None:
    found = examined(tmp_path, "iemocap", iemocap()[1:])
    differing = {name: one.found for name, one in found.items() if one.differs and name.startswith(("session", "four"))}
    assert differing == {
        "four classes (ang, hap + exc, neu, sad)": 5530,
        "session 1, four classes": 1084,
        "session 1, ang": 228,
    }


def ravdess(actors: int = 24) -> list[Utterance]:
    labels = ["calm", "happy", "sad", "angry", "fearful", "disgust", "surprised"]
    per_actor = [*repeat("neutral", 4), *chain.from_iterable(repeat(label, 8) for label in labels)]
    return [
        Utterance(id=f"{actor}-{place}", speaker=f"{actor:02}", label=label, channel="speech", duration_s=3.5)
        for actor in range(1, actors + 1)
        for place, label in enumerate(per_actor)
    ]


def test_ravdess_as_published_does_not_differ(tmp_path: Path) -> None:
    found = examined(tmp_path, "ravdess", ravdess())
    assert found["speech recordings"] == Finding("speech recordings", 1440, 1440)
    assert [name for name, one in found.items() if one.differs] == ["committed in enc"]


def test_an_actor_with_too_few_recordings_is_named(tmp_path: Path) -> None:
    found = examined(tmp_path, "ravdess", ravdess()[:-1])
    assert found["speech recordings"].differs
    assert found["speech recordings"].detail == "actor 24 has 59"


def test_other_corpora_are_counted_without_a_verdict(tmp_path: Path) -> None:
    utterances = [Utterance(id="a", label="x", duration_s=31.0), Utterance(id="b", duration_s=0.1)]
    found = examined(tmp_path, "manifest", utterances)
    assert (found["label x"].found, found["label (no label)"].found) == (1, 1)
    assert found["longer than 30 s"].detail == "a 31.0 s"
    assert found["shorter than 0.4 s"].detail == "b 0.10 s"
    assert not any(one.differs for name, one in found.items() if name != "committed in enc")


def test_twin_recordings_are_named(toy: tuple[Path, StreamPlan]) -> None:
    path, plan = toy
    commit(path, plan, [0])
    assert not [one for one in examine(FeatureCache(path)) if one.what.startswith("groups") and one.found]
    from cache.layout import read_layout

    region = read_layout(path).streams["enc"].regions["input_digest"]
    with path.open("rb+") as file:  # the digest of a, for d too
        file.seek(region.offset)
        digest = file.read(16)
        file.seek(region.offset + 3 * 16)
        file.write(digest)
    (twins,) = [one for one in examine(FeatureCache(path)) if one.what.startswith("groups")]
    assert (twins.found, twins.detail) == (1, "a = d")
