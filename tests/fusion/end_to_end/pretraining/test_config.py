"""Settings: allowed values, steps and schedules."""

from typing import Any

import pytest

from fusion.end_to_end.pretraining.config import PretrainConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"precision": "int8"}, "precision must be one of float32, bfloat16, float16, got 'int8'"),
        ({"epochs": 0}, "epochs must be at least 1, got 0"),
        ({"mask_length": 1}, "mask_length must be at least 2, got 1"),
        ({"negatives": 0}, "negatives must be at least 1, got 0"),
        ({"seed": 2**32}, "seed must be below"),
        ({"lr": 0.0}, "lr must be positive, got 0.0"),
        ({"diversity_weight": -0.1}, "diversity_weight must not be negative, got -0.1"),
        ({"mask_prob": 0.0}, r"mask_prob must lie in \(0, 1\], got 0.0"),
        ({"gumbel_decay": 1.5}, r"gumbel_decay must lie in \(0, 1\], got 1.5"),
        ({"gumbel_max": 0.1}, r"gumbel_max must be at least gumbel_min \(0.5\), got 0.1"),
    ],
)
def test_values_that_are_not_allowed_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PretrainConfig(**values)


def test_the_learning_rate_rises_over_a_tenth_of_the_steps_and_falls_to_zero() -> None:
    schedule = PretrainConfig(epochs=4, lr=1.0).schedule(batches=5)
    rates = [schedule.rate(step) for step in range(20)]
    assert rates[:2] == [0.5, 1.0]
    assert rates[2] == 1.0
    assert rates[-1] == pytest.approx(1 / 18)
    assert schedule.rate(20) == 0.0


def test_a_number_of_steps_replaces_epochs() -> None:
    config = PretrainConfig(epochs=4, steps=7, warmup_steps=3)
    assert config.total_steps(batches=5) == config.schedule(batches=5).steps == 7
    assert config.schedule(batches=5).warmup_steps == 3


def test_the_temperature_falls_as_in_hugging_faces_example() -> None:
    config = PretrainConfig()
    assert config.temperature(0) == 2.0
    assert config.temperature(100_000) == pytest.approx(2.0 * 0.999995**100_000)
    assert config.temperature(1_000_000) == 0.5
