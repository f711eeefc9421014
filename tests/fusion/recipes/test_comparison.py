import re
from typing import Any

import pytest

from fusion.protocols.catalog import describe_protocol
from fusion.recipes.catalog import RECIPES, recipe
from fusion.recipes.comparison import compare_with_published

SCORES = {"wa": 0.701, "ua": 0.7123, "wf1": 0.68, "mf1": 0.6612, "loss": 0.9}
VERDICTS = r"\b(better|worse|best|improv|gain|outperform|lower|higher|beat|good|bad|short of|success|fail)"
MARK = ", the variant run here"


def shown(name: str, **run: Any) -> list[str]:
    settings = recipe(name)
    return compare_with_published(
        settings, SCORES, **{"protocol": settings.protocol, "labels": settings.labels, "frozen": True, **run}
    )


@pytest.mark.parametrize("name", RECIPES)
def test_all_that_was_published_stands_beside_what_was_obtained(name: str) -> None:
    settings = recipe(name)
    lines = shown(name)
    assert lines[0].split() == ["wa", "ua", "wf1", "mf1"]
    assert lines[1].split()[:5] == ["obtained", "0.7010", "0.7123", "0.6800", "0.6612"]
    for figure, line in zip(settings.published.figures, lines[2:], strict=False):
        assert line.startswith(f"published: {figure.what}")
        assert line.endswith(figure.status)
        assert all(f"{score:.4f}" in line for score in figure.scores.values())
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
    lines = compare_with_published(
        recipe("superb-iemocap"), {"wa": 0.6}, protocol="session", labels="iemocap4", frozen=True
    )
    assert lines[1].split()[:5] == ["obtained", "0.6000", "-", "-", "-"]
    assert [line.index("0.6") for line in lines[1:3]] == [lines[0].index("wa") - 4] * 2


@pytest.mark.parametrize("name", RECIPES)
def test_pooled_wa_is_the_index_of_bimodal_alone(name: str) -> None:
    """B-14: the paper averages folds weighted by their sizes."""
    plain = [" ".join(line.split()) for line in shown(name)]
    lines = [" ".join(line.split()) for line in shown(name, pooled={"wa": 0.71, "ua": 0.72})]
    added = [line for line in lines if line not in plain]
    index = "the index of the paper: folds weighted by their sizes (B-14)"
    assert added == ([f"obtained, pooled 0.7100 - - - {index}"] if name.startswith("bimodal") else [])


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
        ("lemer-iemocap", ["modalities=audio", "tonal_labels=off"], "speech alone, no labels"),
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
        ("multab-iemocap", ["dropout=0.2"]),
    ],
)
def test_a_run_of_no_published_variant_has_no_mark(name: str, changed: list[str]) -> None:
    lines = shown(name, changed=changed)
    assert marked(lines) == []
    assert lines[1].endswith(f", NOT the recipe: {', '.join(changed)}" if changed else "labels iemocap4")


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("bert-base+history10", "text alone, no labels"),
        ("bert-base", "text alone, no labels, no turns before"),
        ("roberta-base", "text alone, no labels"),
    ],
)
def test_variants_of_the_same_fields_are_told_apart_by_the_stream(text: str, variant: str) -> None:
    changed = ["modalities=text", "text_labels=off"]
    assert marked(shown("lemer-iemocap", changed=changed, streams={"text": text})) == [variant]
