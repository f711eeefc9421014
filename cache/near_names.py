"""Near names: the known names that an unknown name probably means, for the hint of an error."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

# Names that other programs and papers use -> the names that mmer uses. Only those that are known where the name was
# given are proposed, so that `gcf2net` is a head for --fusion and a recipe for --recipe.
HABITS: Mapping[str, tuple[str, ...]] = {
    # fields of training
    "learning_rate": ("lr",),
    "max_lr": ("lr",),
    "bs": ("batch_size",),
    "batch": ("batch_size",),
    "train_batch_size": ("batch_size",),
    "max_epochs": ("epochs",),
    "num_epochs": ("epochs",),
    "n_epochs": ("epochs",),
    "early_stop": ("patience",),
    "early_stopping": ("patience",),
    "wd": ("weight_decay",),
    "l2": ("weight_decay",),
    "optim": ("optimizer",),
    "scheduler": ("schedule", "scheduler"),
    "lr_scheduler": ("schedule",),
    "lr_schedule": ("schedule",),
    "warmup_ratio": ("warmup",),
    "num_warmup_steps": ("warmup_steps",),
    "grad_clip": ("clip",),
    "gradient_clipping": ("clip",),
    "max_grad_norm": ("clip",),
    "max_norm": ("clip",),
    "metric": ("monitor",),
    "smoothing": ("label_smoothing",),
    "weighted_loss": ("class_weights",),
    "gamma": ("focal_gamma",),
    "amp": ("precision",),
    "fp16": ("precision",),
    "bf16": ("precision",),
    "mixed_precision": ("precision",),
    "grad_accum": ("accumulate",),
    "gradient_accumulation": ("accumulate",),
    "gradient_accumulation_steps": ("accumulate",),
    "gradient_checkpointing": ("checkpointing",),
    "encoder_lr": ("audio_lr", "text_lr"),
    # fields of heads
    "hidden": ("dim",),
    "hidden_dim": ("dim",),
    "hidden_size": ("dim",),
    "d_model": ("dim",),
    "width": ("dim",),
    "num_layers": ("layers",),
    "n_layers": ("layers",),
    "depth": ("layers",),
    "num_heads": ("heads",),
    "n_heads": ("heads",),
    "nhead": ("heads",),
    "dropout_rate": ("dropout",),
    "drop": ("dropout",),
    "normalize": ("standardize",),
    "normalise": ("standardize",),
    "zscore": ("standardize",),
    "ctc_weight": ("alpha",),
    # heads and recipes
    "gcf2net": ("rescmfa", "gcf2net-iemocap", "gcf2net-meld"),
    "gcf2": ("rescmfa", "gcf2net-iemocap", "gcf2net-meld"),
    "cmfa": ("rescmfa", "cross-attention"),
    "multab": ("tab", "multab-iemocap", "multab-meld"),
    "lemer": ("label-guided", "lemer-iemocap"),
    "label_embedding": ("label-guided",),
    "xattn": ("cross-attention",),
    "cross_attn": ("cross-attention",),
    "cross_modal": ("cross-attention", "rescmfa", "bimodal"),
    "attention": ("cross-attention",),
    "concatenation": ("concat",),
    "early": ("concat",),
    "early_fusion": ("concat",),
    "late": ("score",),
    "late_fusion": ("score",),
    "sum": ("score",),
    "linear": ("probe", "audio", "text"),
    "linear_probe": ("probe",),
    "logistic": ("probe",),
    "logistic_regression": ("probe",),
    "logreg": ("probe",),
    "svm": ("probe",),
    "speech": ("audio",),
    "audio_only": ("audio",),
    "text_only": ("text",),
    "superb": ("superb-iemocap", "audio"),
    "emobox": ("emobox-iemocap", "emobox-ravdess"),
    # protocols: more of them, with what they promise, are in fusion.protocols.catalog
    "leave_one_speaker_out": ("loso",),
    # encoders
    "w2v2": ("wav2vec2-base", "wav2vec2-large"),
    "wav2vec": ("wav2vec2-base", "wav2vec2-large"),
    "wav2vec2.0": ("wav2vec2-base", "wav2vec2-large"),
    "wav2vec2": ("wav2vec2-base", "wav2vec2-large"),
    "xlsr": ("xls-r-300m",),
    "data2vec": ("data2vec-audio-base",),
    "unispeech": ("unispeech-sat-base-plus",),
    "deberta": ("deberta-v3-base",),
    "e5": ("multilingual-e5-base",),
    "xlmr": ("xlm-roberta-base",),
    "vit": ("vit-mel-base",),
    "fbank": ("logmel80",),
    "mel": ("logmel80",),
    "melspectrogram": ("logmel80",),
    # corpora
    "crema": ("crema-d",),
    "berlin": ("emodb",),
    "mosi": ("cmu-mosi",),
    "mosei": ("cmu-mosei",),
    "msp": ("msp-podcast", "msp-improv"),
    "custom": ("manifest",),
    "own": ("manifest",),
    "csv": ("manifest",),
    "table": ("manifest",),
    # label sets
    "iemocap": ("iemocap4", "iemocap6"),
    "ravdess": ("ravdess8",),
    # options, with underscores for hyphens
    "model": ("fusion",),
    "model_name": ("fusion", "encoder"),
    "head": ("fusion",),
    "arch": ("fusion",),
    "data": ("cache", "root"),
    "dataset": ("cache", "root"),
    "corpus": ("cache", "root"),
    "features": ("cache",),
    "data_dir": ("root", "cache"),
    "output": ("out", "cache"),
    "output_dir": ("out", "cache"),
    "out_dir": ("out",),
    "save_dir": ("out",),
    "force": ("replace",),
    "overwrite": ("replace",),
    "gpu": ("device",),
    "cuda": ("device",),
    "cpu": ("device",),
    "num_workers": ("workers",),
    "jobs": ("workers",),
    "split": ("protocol",),
    "cv": ("protocol", "folds"),
    "filter": ("only",),
    "finetune": ("tune",),
    "layer": ("encoder",),
    "transcribe": ("asr",),
    "tex": ("latex",),
    "plan": ("dry_run",),
    "estimate": ("dry_run",),
}
SHOWN = 4  # names of one prefix; more than that are no help
ALIKE, MOST = 0.6, 3  # share of letters in common, as in difflib; names of similar letters
PREFIX = 3  # letters: a shorter prefix fits too many names


def near_names(name: str, known: Iterable[str]) -> list[str]:
    """Returns the known names that an unknown name probably means, nearest first.

    They are the names of a habit, else the same name in another spelling, else names that begin with it and names of
    similar letters.

    Args:
        name: unknown name.
        known: names to choose from.

    Example:
        >>> near_names("learning-rate", ["lr", "layers"])
        ['lr']
        >>> near_names("WavLM", ["wavlm-base", "wavlm-large", "hubert-base"])
        ['wavlm-base', 'wavlm-large']
    """
    names = list(dict.fromkeys(known))
    if meant := [each for each in _HABITS.get(_plain(name), ()) if each in names]:
        return meant
    if same := [each for each in names if _plain(each) == _plain(name)]:
        return same
    begun = [each for each in names if len(name) >= PREFIX and _plain(each).startswith(_plain(name))]
    ratios = {each: difflib.SequenceMatcher(None, _spelt(each), _spelt(name)).ratio() for each in names}
    similar = sorted((each for each in names if ratios[each] >= ALIKE), key=lambda each: -ratios[each])[:MOST]
    return [*begun, *(each for each in similar if each not in begun)] if len(begun) <= SHOWN else similar


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint for an unknown name: near names, or all known names.

    Args:
        name: unknown name.
        known: names to choose from.

    Example:
        >>> nearest("droput", ["dim", "dropout"])
        'did you mean dropout?'
        >>> nearest("x", ["dim", "dropout"])
        'known: dim, dropout'
    """
    names = list(known)
    meant = near_names(name, names)
    return f"did you mean {listed(meant)}?" if meant else f"known: {', '.join(names)}"


def listed(names: Sequence[str]) -> str:
    """Formats names as a choice.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b or c'
    """
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def _spelt(name: str) -> str:
    """Returns a name in lower case, with an underscore for each separator of its words."""
    return re.sub(r"[-\s]+", "_", name.strip().lower())


def _plain(name: str) -> str:
    """Returns a name without what spellings differ in: case, spaces, hyphens, underscores, dots."""
    return re.sub(r"[-_.\s]+", "", name.lower())


_HABITS: Mapping[str, tuple[str, ...]] = {_plain(name): meant for name, meant in HABITS.items()}
