from typing import Any

import pytest

from fusion.heads.label_guided.head import LabelGuidedConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_labels": "codebook"}, "text_labels must be one of off, random, label-word, tfidf, got 'codebook'"),
        ({"constraint": "C5"}, "constraint must be one of C1, C2, C3, C4"),
        ({"constraint": "C3", "tonal_labels": "off"}, "constraint C3 needs the labels of both modalities"),
        ({"frames": 0}, "frames must be at least 1, got 0"),
        ({"mu_c": -1.0}, "mu_c must be at least 0, got -1.0"),
        ({"mu_m": 0.0}, "mu_m must be positive, got 0.0"),
        ({"idf": "word"}, "idf must be one of utterance, class"),
    ],
)
def test_values_that_are_not_allowed_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelGuidedConfig(**values)
