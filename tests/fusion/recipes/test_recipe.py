import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from cache.errors import MmerError
from cache.joined import AnyCache
from fusion.experiment.streams import streams_of
from fusion.recipes.catalog import recipe


def holding(*streams: str, root: Path = Path("nowhere")) -> AnyCache:
    header = {"corpus": {"name": "iemocap", "root": str(root)}}
    file = SimpleNamespace(path=Path("my caches/a.h5"))
    return cast(AnyCache, SimpleNamespace(path=file.path, files=[file], streams=dict.fromkeys(streams), header=header))


def test_the_recipe_names_the_streams_unless_the_user_does() -> None:
    cache = holding("wav2vec2-base", "roberta-base", "hubert-base")
    settings = recipe("gcf2net-iemocap")
    both = ("audio", "text", "chars")
    assert streams_of(settings, cache, both, {}) == {"audio": "wav2vec2-base", "text": "roberta-base"}
    assert streams_of(settings, cache, both, {"audio": "hubert-base"})["audio"] == "hubert-base"
    assert streams_of(settings, cache, ["text"], {}) == {"text": "roberta-base"}


def test_a_missing_stream_is_told_with_the_command_that_adds_it(tmp_path: Path) -> None:
    command = (
        f"mmer-featurize iemocap --root {tmp_path} --cache 'my caches/a.h5' --encoder wav2vec2-base "
        "--encoder bert-base --history 10 --max-tokens 150"
    )
    with pytest.raises(
        MmerError, match=re.escape("my caches/a.h5 lacks bert-base+history10, which recipe lemer-iemocap")
    ) as error:
        streams_of(recipe("lemer-iemocap"), holding("wav2vec2-base", "bert-base", root=tmp_path), ["audio", "text"], {})
    assert command in str(error.value)
    assert str(error.value).endswith("or choose another stream with --text NAME")


def test_a_missing_encoder_to_start_from_is_told_too() -> None:
    with pytest.raises(MmerError, match=r"lacks vit-mel-base, .* with --stream patches=NAME"):
        streams_of(recipe("jfm-iemocap"), holding("logmel80", "roberta-large@12"), ["mel", "text", "patches"], {})
