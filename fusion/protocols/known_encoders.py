"""Public checkpoints that were trained on an emotion corpus and do not say so in their files.

Their speakers are unknown to mmer, so a split of one of these corpora counts as seen.
"""

from collections.abc import Mapping

SUPERB = ("iemocap",)  # emotion recognition of SUPERB, arXiv:2105.01051; stated in the model cards

# Hub id -> corpora that it was trained on, in the order of its source.
TRAINED_ON: Mapping[str, tuple[str, ...]] = {
    "superb/wav2vec2-base-superb-er": SUPERB,
    "superb/wav2vec2-large-superb-er": SUPERB,
    "superb/hubert-base-superb-er": SUPERB,
    "superb/hubert-large-superb-er": SUPERB,
    "speechbrain/emotion-recognition-wav2vec2-IEMOCAP": ("iemocap",),  # model card
    "ehcalabres/wav2vec2-lg-xlsr-en-speech-emotion-recognition": ("ravdess",),  # model card
    "j-hartmann/emotion-english-distilroberta-base": ("meld",),  # model card: MELD is one of six corpora
    "emotion2vec/emotion2vec_base": ("iemocap", "meld"),  # unlabeled; arXiv:2312.15185, data of pre-training
}


def seen_corpora(source: str) -> tuple[str, ...]:
    """Returns the emotion corpora that a public checkpoint was trained on.

    Args:
        source: hub id.

    Example:
        >>> seen_corpora("superb/hubert-large-superb-er"), seen_corpora("facebook/wav2vec2-base")
        (('iemocap',), ())
    """
    return TRAINED_ON.get(source, ())
