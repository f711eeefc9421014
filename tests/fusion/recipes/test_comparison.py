import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from fusion.protocols.catalog import describe_protocol
from fusion.recipes.catalog import RECIPES, recipe
from fusion.recipes.comparison import compare_sum_with_published, compare_with_published
from fusion.recipes.matching import ReadStream, RunFacts

SCORES = {"wa": 0.701, "ua": 0.7123, "wf1": 0.68, "mf1": 0.6612, "loss": 0.9}
VERDICTS = r"\b(better|worse|best|improv|gain|outperform|lower|higher|beat|good|bad|short of|success|fail)"
MARK = ", the variant run here"
AGAIN = "second-stage pre-training"


def facts(name: str, *, streams: Mapping[str, str] | None = None, **run: Any) -> RunFacts:
    """Returns the facts of a run of a recipe, with its streams unless others are named."""
    settings = recipe(name)
    reads = {role: ReadStream.named(stream) for role, stream in (streams or settings.streams).items()}
    values = {"protocol": settings.protocol, "labels": settings.labels, "frozen": True, **run}
    return RunFacts(streams=reads, **values)


def shown(
    name: str, *, recall: Mapping[str, float] | None = None, pooled: Mapping[str, float] | None = None, **run: Any
) -> list[str]:
    return compare_with_published(recipe(name), SCORES, facts(name, **run), recall=recall, pooled=pooled)


@pytest.mark.parametrize("name", RECIPES)
def test_all_that_was_published_stands_beside_what_was_obtained(name: str) -> None:
    settings = recipe(name)
    lines = shown(name)
    assert lines[0].split() == ["WA", "UA", "W-F1", "M-F1"]
    assert lines[1].split()[:5] == ["obtained", "70.10", "71.23", "68.00", "66.12"]
    for figure, line in zip(settings.published.figures, lines[2:], strict=False):
        assert line.startswith(f"published: {figure.what}")
        assert line.partition("; not like for like: ")[0].endswith(figure.status)
        assert all(f"{100 * score:.2f}" in line for score in figure.scores.values())
    assert f"protocol of the paper: {settings.published.protocol}" in lines
    assert f"protocol of this run: {describe_protocol(settings.protocol)}" in lines
    assert [f"note: {note}" for note in settings.published.notes] == lines[-len(settings.published.notes) :]


@pytest.mark.parametrize("name", RECIPES)
def test_a_difference_is_never_judged(name: str) -> None:
    assert not [line for line in shown(name) if re.search(VERDICTS, line, re.IGNORECASE)]


def test_the_run_is_told_as_it_was() -> None:
    line = shown("gcf2net-meld:paper")[1]
    assert line.endswith("meld, frozen features, protocol official, labels meld7")
    line = shown("jfm-iemocap", protocol="session5", labels="iemocap6", frozen=False, corpus="demo")[1]
    run = "demo, fine-tuned encoders, protocol session5, labels iemocap6"
    assert line.endswith(f"{run}, NOT the recipe: protocol=session5, labels=iemocap6")


def test_other_streams_are_not_the_recipe() -> None:
    streams = dict(recipe("superb-iemocap").streams)
    assert "NOT" not in shown("superb-iemocap", streams=streams)[1]
    line = shown("superb-iemocap", streams={"audio": "wav2vec2-base"}, changed=["epochs=1"])[1]
    assert line.endswith("labels iemocap4, NOT the recipe: epochs=1, audio=wav2vec2-base")


def test_fewer_utterances_are_not_the_recipe() -> None:
    line = shown("superb-iemocap", only=["--only style=improvised"])[1]
    assert line.endswith("labels iemocap4, NOT the recipe: --only style=improvised")


def test_scores_stand_in_columns_and_a_missing_one_is_a_dash() -> None:
    lines = compare_with_published(recipe("superb-iemocap"), {"wa": 0.6}, facts("superb-iemocap"))
    assert lines[1].split()[:5] == ["obtained", "60.00", "-", "-", "-"]
    assert [line.index("6") + 5 for line in lines[1:3]] == [lines[0].index("WA") + 2] * 2


@pytest.mark.parametrize("name", RECIPES)
def test_pooled_wa_is_the_index_of_bimodal_alone(name: str) -> None:
    """B-14: the paper averages folds weighted by their sizes."""
    plain = [" ".join(line.split()) for line in shown(name)]
    lines = [" ".join(line.split()) for line in shown(name, pooled={"wa": 0.71, "ua": 0.72})]
    added = [line for line in lines if line not in plain]
    index = "the index of the paper: folds weighted by their sizes (B-14)"
    assert added == ([f"obtained, pooled 71.00 - - - {index}"] if name.startswith("bimodal") else [])


def marked(lines: list[str]) -> list[str]:
    return [re.split(" {2,}", line)[0].removeprefix("published: ") for line in lines if line.endswith(MARK)]


@pytest.mark.parametrize(
    ("name", "changed", "variant"),
    [
        ("jfm-iemocap", ["fusion=late"], "late fusion"),
        ("jfm-iemocap", ["fusion=cfa"], "cross-modal attention"),
        ("jfm-meld", ["fusion=concat"], "concatenation"),
        ("jfm-meld:paper", ["icl=False"], "no ICL"),
        ("bimodal-iemocap", ["beta=0.0", "alpha=0.0"], "no CPC, no ECL"),
        ("bimodal-iemocap", ["tasks=cpc+supervised"], "no augmentation"),
        ("lemer-iemocap", ["modalities=audio", "tonal_labels=off"], "B1: B2, pre-trained once"),
    ],
)
def test_a_run_of_a_published_variant_is_told_to_be_it(name: str, changed: list[str], variant: str) -> None:
    lines = shown(name, changed=changed)
    assert marked(lines) == [variant]
    assert lines[1].endswith(f", NOT the recipe: {', '.join(changed)}, published as '{variant}'")


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("jfm-iemocap", []),
        ("jfm-iemocap", ["fusion=late", "lr=0.01"]),
        ("jfm-iemocap", ["joint=True"]),
        ("bimodal-iemocap", ["alpha=0.0"]),
        ("bimodal-iemocap", ["augmentation=False"]),
        ("multab-iemocap", ["dropout=0.2"]),
    ],
)
def test_a_run_of_no_published_variant_has_no_mark(name: str, changed: list[str]) -> None:
    lines = shown(name, changed=changed)
    assert marked(lines) == []
    assert lines[1].endswith(f", NOT the recipe: {', '.join(changed)}" if changed else "labels iemocap4")


@pytest.mark.parametrize(
    ("text", "variant"),
    [("bert-base+history10", ["A2: A5, no labels"]), ("bert-base", ["A1: A2, no history"]), ("roberta-base", [])],
)
def test_variants_of_the_same_fields_are_told_apart_by_the_stream(text: str, variant: list[str]) -> None:
    changed = ["modalities=text", "text_labels=off"]
    assert marked(shown("lemer-iemocap", changed=changed, streams={"text": text})) == variant


def test_a_figure_that_leaves_a_field_open_is_matched_with_what_differs() -> None:
    lines = shown("lemer-iemocap", changed=["modalities=text", "text_labels=random"], streams={"text": "bert-base"})
    assert lines[1].endswith("published as 'A1: A2, no history' but for text_labels=random")
    assert marked(lines) == ["A1: A2, no history"]


def test_second_stage_pre_training_is_named_until_the_run_has_it() -> None:
    def unlike(lines: list[str]) -> list[str]:
        return [re.split(" {2,}", line)[0].removeprefix("published: ") for line in lines if AGAIN in line]

    once = facts("lemer-iemocap")
    again = replace(once, streams={**once.streams, "audio": replace(once.streams["audio"], second_stage=True)})
    figures = [figure.what for figure in recipe("lemer-iemocap").published.figures if figure.second_stage]
    assert [what[:2] for what in figures] == ["LE", "C2", "C3", "C4", "su", "B5", "B4", "B3", "B2"]
    rows = compare_with_published(recipe("lemer-iemocap"), SCORES, once)
    assert unlike(rows[: len(rows) - 6]) == figures
    rows = compare_with_published(recipe("lemer-iemocap"), SCORES, again)
    assert unlike(rows[: len(rows) - 6]) == ["B1: B2, pre-trained once"]


def test_a_run_without_history_is_not_like_for_like_with_figures_that_have_it() -> None:
    lines = shown("lemer-iemocap", changed=["modalities=text"], streams={"text": "bert-base"})
    assert next(line for line in lines if "A5: text alone" in line).endswith("not like for like: dialogue history")
    assert not next(line for line in lines if "B1:" in line).endswith("dialogue history")


def test_printed_recalls_stand_below_the_obtained_ones_with_the_remark_of_the_audit() -> None:
    obtained = {"neutral": 0.5, "surprise": 0.25, "fear": 0.1, "sadness": 0.2, "joy": 0.3, "disgust": 0.4, "anger": 1.0}
    lines = shown("gcf2net-meld", recall=obtained)
    start = next(place for place, line in enumerate(lines) if line.startswith("recall of each class"))
    header, run, printed = (re.split(" {2,}", line) for line in lines[start : start + 3])
    assert header == ["recall of each class", *obtained]
    assert run == ["obtained", "50.00", "25.00", "10.00", "20.00", "30.00", "40.00", "100.00"]
    what, *cells, remark = printed
    assert what == "published: GCF2-Net, modality not stated"
    assert dict(zip(obtained, cells, strict=True)) == {
        **dict.fromkeys(obtained, "-"),
        "neutral": "89.94",
        "fear": "11.03",
        "disgust": "10.88",
    }
    assert remark == "not reachable on the official test set (1256, 50 and 68 utterances)"
    assert not [line for line in shown("jfm-meld", recall=obtained) if line.startswith("recall")]


def test_a_score_fusion_belongs_to_the_sum_of_two_label_enhanced_runs() -> None:
    settings, both = recipe("lemer-iemocap"), facts("lemer-iemocap")

    def sum_of(*fields: list[str]) -> list[str]:
        parts = [facts("lemer-iemocap", changed=changed) for changed in fields]
        return compare_sum_with_published(settings, SCORES, both, parts)

    lines = sum_of(["modalities=audio"], ["modalities=text"])
    assert "published as 'sum of the logits of A5 and B5'" in lines[1]
    assert marked(lines) == ["sum of the logits of A5 and B5"]
    assert AGAIN in next(line for line in lines if line.endswith(MARK))
    assert sum_of(["modalities=audio"], ["modalities=text", "text_labels=off"]) == []
    assert sum_of(["modalities=text"], ["modalities=text"]) == []
    assert sum_of(["modalities=audio"], ["modalities=text"], []) == []
