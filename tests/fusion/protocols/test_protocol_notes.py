from fusion.protocols.catalog import make_folds, notes_on
from tests.support.rosters import by_label, dyads, four_classes, without


def test_the_only_dialogue_with_a_class_stays_in_train_and_its_absence_from_dev_is_noted() -> None:
    utterances = [one for one in dyads(sessions=2) if one.label != "sad" or one.dialogue.endswith("d0")]
    classes = four_classes(utterances)
    names = ("ang", "hap", "neu", "sad")
    folds = make_folds(utterances, classes, "session", 0, names)
    assert [3 in classes[fold.train] for fold in folds] == [True, True]
    assert notes_on(folds, utterances, classes, names, "session") == [
        "fold 1: dev has no utterance of class sad",
        "fold 2: dev has no utterance of class sad",
    ]


def test_unknown_dialogues_are_noted_where_they_are_promised_to_be_kept_together() -> None:
    utterances = without("dialogue", dyads())
    told = []
    for protocol in ("session", "random5"):
        folds = make_folds(utterances, by_label(utterances), protocol, 0)
        told.append(notes_on(folds, utterances, by_label(utterances), "abcdef", protocol))
    assert told[0] == ["360 of 360 utterances name no dialogue: of these, dev is drawn one by one"]
    assert not any("dialogue" in note for note in told[1])


def test_a_dev_part_far_from_a_tenth_is_noted() -> None:
    utterances = dyads()
    folds = make_folds(utterances, by_label(utterances), "actor5", 0)
    notes = notes_on(folds, utterances, by_label(utterances), "abcdef", "actor5")
    assert notes[0].startswith("fold 1: dev is 25% of what is not test")


def test_unknown_speakers_are_noted_where_nobody_can_tell_who_is_on_both_sides() -> None:
    utterances = without("speaker", dyads())
    folds = make_folds(utterances, by_label(utterances), "session", 0)
    notes = notes_on(folds, utterances, by_label(utterances), "abcdef", "session")
    assert notes[0] == "fold 1: 360 utterances name no speaker, who may be on both sides"
