"""Near names of habits, spellings, beginnings and misspelt words."""

from collections.abc import Iterable

import pytest

from cache.near_names import HABITS, near_names, nearest
from cli.extract import featurize
from cli.grid import grid
from cli.predict import predict
from cli.train import train
from featurize.corpora.catalog import CORPORA
from featurize.encoders.catalog import ENCODERS
from fusion.experiment.fields import field_names
from fusion.heads.catalog import HEADS
from fusion.protocols.catalog import PROTOCOLS
from fusion.protocols.labels import LABEL_SETS
from fusion.recipes.catalog import RECIPES

OPTIONS = [
    text.lstrip("-").replace("-", "_")
    for command in (train, grid, featurize, predict)
    for one in command.params
    for text in one.opts
]


def test_every_name_of_the_table_exists() -> None:
    known = {*field_names(), *HEADS, *RECIPES, *PROTOCOLS, *ENCODERS, *CORPORA, *LABEL_SETS, *OPTIONS}
    assert not [name for meant in HABITS.values() for name in meant if name not in known]


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("learning_rate", field_names(), ["lr"]),
        ("batch", field_names(), ["batch_size"]),
        ("gcf2net", HEADS, ["rescmfa"]),
        ("GCF2-Net", HEADS, ["rescmfa"]),
        ("gcf2net", RECIPES, ["gcf2net-iemocap", "gcf2net-meld"]),
        ("mul_tab", HEADS, ["tab"]),
        ("LE-MER", HEADS, ["label-guided"]),
        ("crossattention", HEADS, ["cross-attention"]),
        ("wav2vec2", ENCODERS, ["wav2vec2-base", "wav2vec2-large"]),
        ("wavlm", ENCODERS, ["wavlm-base", "wavlm-base-plus", "wavlm-large"]),
        ("roberta_base", ENCODERS, ["roberta-base"]),
        ("CREMAD", CORPORA, ["crema-d"]),
        ("IEMOCAP", CORPORA, ["iemocap"]),
        ("emo-db", CORPORA, ["emodb"]),
        ("LOSO", PROTOCOLS, ["loso"]),
        ("iemocap", LABEL_SETS, ["iemocap4", "iemocap6"]),
        ("droput", field_names(), ["dropout"]),
        ("qqq", HEADS, []),
    ],
)
def test_a_name_means_the_names_of_its_catalog(name: str, known: Iterable[str], meant: list[str]) -> None:
    found = near_names(name, known)
    assert found[: len(meant)] == meant
    assert bool(found) == bool(meant)


def test_without_a_near_name_all_names_are_the_hint() -> None:
    assert nearest("qqq", ["b", "a"]) == "known: b, a"
