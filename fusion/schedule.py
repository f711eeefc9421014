"""The learning rate of every step: it rises in a line during the warm-up, and then takes a course."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

# Course -> share of the rate that is left when a share of the steps after the warm-up is done.
COURSES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: (1.0 + math.cos(math.pi * done)) / 2,  # Loshchilov and Hutter, 2017, arXiv:1608.03983
}


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """The rates of one training.

    Attributes:
        lr: the greatest rate.
        course: what the rate does after the warm-up, of `COURSES`.
        warmup_steps: of the warm-up.
        steps: of the whole training, if nothing stops it early.
    """

    lr: float
    course: str
    warmup_steps: int
    steps: int

    def rate(self, step: int) -> float:
        """Gives the rate of a step, counted from 0.

        Example:
            >>> linear = Schedule(lr=0.4, course="linear", warmup_steps=2, steps=6)
            >>> [round(linear.rate(step), 3) for step in range(6)]
            [0.2, 0.4, 0.4, 0.3, 0.2, 0.1]
        """
        if step < self.warmup_steps:
            return self.lr * ((step + 1) / self.warmup_steps)
        return self.lr * COURSES[self.course]((step - self.warmup_steps) / (self.steps - self.warmup_steps))
