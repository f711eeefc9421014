"""Settings of a pre-training: steps, learning rate, masks, negatives and the temperature of the quantizer.

Defaults follow wav2vec 2.0 (Baevski et al., 2020, arXiv:2006.11477) and Hugging Face's example
``speech-pretraining/run_wav2vec2_pretraining_no_trainer.py``; docs/pretrain.md gives the reasons of the others.
"""

from dataclasses import dataclass

from fusion.training.config import PRECISIONS, SEEDS, Schedule

WARMUP_SHARE = 0.1  # of all steps, unless the number of warm-up steps is given


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """The settings of a pre-training.

    Attributes:
        epochs: number of epochs.
        steps: number of steps instead of whole epochs; 0 for `epochs`.
        batch_size: number of utterances in a batch.
        max_seconds: longest part of an utterance that a step reads, in seconds; a random part of a longer one is read.
        lr: maximum learning rate, reached at the end of the warm-up; it then falls linearly to 0.
        warmup_steps: number of steps of the linear warm-up; None for a tenth of all steps.
        weight_decay: weight decay of matrices.
        clip: maximum norm of the gradient; 0 for no clipping.
        mask_prob: expected share of masked frames before spans overlap, in (0, 1].
        mask_length: number of frames in a masked span, 20 ms each.
        mask_spans: least number of masked spans in an utterance.
        negatives: number of distractors of each masked frame; None for the number of the encoder's configuration.
        diversity_weight: weight of the diversity loss; None for the weight of the encoder's configuration.
        gumbel_max: temperature of the Gumbel softmax at the first step.
        gumbel_min: lowest temperature.
        gumbel_decay: factor of the temperature from step to step, in (0, 1].
        precision: precision of the Transformer: ``float32``, or mixed with ``bfloat16`` or ``float16``; convolutions,
            quantizer and losses are in float32.
        seed: random seed of masks, negatives, dropout and Gumbel noise.
        data_seed: random seed of folds, development subsets and the order of batches.
    """

    epochs: int = 20
    steps: int = 0
    batch_size: int = 16
    max_seconds: float = 20.0
    lr: float = 1e-4
    warmup_steps: int | None = None
    weight_decay: float = 0.01
    clip: float = 1.0
    mask_prob: float = 0.65
    mask_length: int = 10
    mask_spans: int = 2
    negatives: int | None = None
    diversity_weight: float | None = None
    gumbel_max: float = 2.0
    gumbel_min: float = 0.5
    gumbel_decay: float = 0.999995
    precision: str = "float32"
    seed: int = 0
    data_seed: int = 0

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}")
        least = {"epochs": 1, "steps": 0, "batch_size": 1, "warmup_steps": 0, "mask_length": 2, "mask_spans": 1}
        for name, value in {**least, "negatives": 1, "seed": 0, "data_seed": 0}.items():
            given = getattr(self, name)
            if given is not None and given < value:
                raise ValueError(f"{name} must be at least {value}, got {given}")
        for name in ("seed", "data_seed"):
            if getattr(self, name) >= SEEDS:
                raise ValueError(f"{name} must be below {SEEDS}, got {getattr(self, name)}")
        for name in ("lr", "max_seconds", "gumbel_min"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("weight_decay", "clip", "diversity_weight"):
            if not (getattr(self, name) or 0) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("mask_prob", "gumbel_decay"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie in (0, 1], got {getattr(self, name)}")
        if self.gumbel_max < self.gumbel_min:
            raise ValueError(f"gumbel_max must be at least gumbel_min ({self.gumbel_min}), got {self.gumbel_max}")

    def total_steps(self, batches: int) -> int:
        """Returns the number of steps of the training, from the number of batches of an epoch."""
        return self.steps or self.epochs * batches

    def schedule(self, batches: int) -> Schedule:
        """Returns the learning-rate schedule, from the number of batches of an epoch."""
        steps = self.total_steps(batches)
        warmup = round(WARMUP_SHARE * steps) if self.warmup_steps is None else self.warmup_steps
        return Schedule(lr=self.lr, shape="linear", warmup_steps=warmup, steps=steps)

    def temperature(self, step: int) -> float:
        """Returns the temperature of the Gumbel softmax at a step, counted from 0.

        Example:
            >>> config = PretrainConfig(gumbel_decay=0.5)
            >>> [config.temperature(step) for step in range(4)]
            [2.0, 1.0, 0.5, 0.5]
        """
        return max(self.gumbel_max * self.gumbel_decay**step, self.gumbel_min)
