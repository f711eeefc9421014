from fusion.protocols.catalog import make_folds, protocol_notes
from tests.support.rosters import by_label, dyads, four_classes, without


def test_the_only_dialogue_with_a_class_stays_in_train_and_its_absence_from_dev_is_noted() -> None:
    utterances = [item for item in dyads(sessions=2) if item.label != "sad" or item.dialogue.endswith("d0")]
    classes = four_classes(utterances)
    names = ("ang", "hap", "neu", "sad")
    folds = make_folds(utterances, classes, "session", 0, names)
    assert [3 in classes[fold.train] for fold in folds] == [True, True]
    assert protocol_notes(folds, utterances, classes, names, "session") == [
        "fold 1: dev has no utterance of class sad",
        "fold 2: dev has no utterance of class sad",
    ]


def test_unknown_dialogues_are_noted_where_they_are_promised_to_be_kept_together() -> None:
    utterances = without("speaker", without("dialogue", dyads()))
    notes = []
    for protocol in ("session", "random5"):
        folds = make_folds(utterances, by_label(utterances), protocol, 0)
        notes.append(protocol_notes(folds, utterances, by_label(utterances), "abcdef", protocol))
    assert notes[0][0] == "360 of 360 utterances have no dialogue: each counts as a dialogue of its own for dev"
    assert not any("dialogue" in note for note in notes[1])


def test_a_large_dev_part_is_noted() -> None:
    utterances = dyads(sessions=4)
    folds = make_folds(utterances, by_label(utterances), "actor5", 0)
    notes = protocol_notes(folds, utterances, by_label(utterances), "abcdef", "actor5")
    assert notes[0] == "fold 1: dev is 33% of the utterances outside test, because it consists of whole speakers"


def test_unknown_speakers_are_noted_where_nobody_can_tell_who_is_on_both_sides() -> None:
    utterances = without("speaker", dyads())
    folds = make_folds(utterances, by_label(utterances), "session", 0)
    notes = protocol_notes(folds, utterances, by_label(utterances), "abcdef", "session")
    assert notes[0] == "fold 1: 360 utterances have no speaker; subsets may share speakers"
