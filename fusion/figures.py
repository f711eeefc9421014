"""A published result, how it came about, and what is to be known before one compares with it."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from fusion.metrics import METRICS

PRINTED, DERIVED, SECOND_HAND = "printed", "derived", "second-hand"
STATUSES = (PRINTED, DERIVED, SECOND_HAND)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One published result; scores are fractions, None where there is none.

    Attributes:
        what: the system or the variant that reached it.
        status: ``printed``; ``derived`` by arithmetic from what is printed; ``second-hand``: the source was not seen.
        wa: accuracy.
        ua: mean recall.
        wf1: weighted F1.
        change: fields of the head that make this variant of the recipe, empty for the system itself.
        head: the head, where it is another one.
        streams: role -> stream that this variant reads in place of the recipe's.
    """

    what: str
    status: str
    wa: float | None = None
    ua: float | None = None
    wf1: float | None = None
    change: Mapping[str, object] = field(default_factory=dict)
    head: str = ""
    streams: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, got {self.status!r}")
        for name, score in self.scores.items():
            if not 0 < score < 1:
                raise ValueError(f"{name} must be a fraction between 0 and 1, got {score}")

    @property
    def scores(self) -> dict[str, float]:
        """The scores that there are, by name."""
        return {name: score for name in METRICS if (score := getattr(self, name)) is not None}


@dataclass(frozen=True, kw_only=True)
class Published:
    """What is published of one system on one corpus.

    Attributes:
        paper: who, when and where.
        protocol: how it was measured, in words.
        figures: the results, that of the system itself first.
        notes: what to know before comparing, a line each.
    """

    paper: str
    protocol: str
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()

    def variant(self, changed: Collection[str], streams: Mapping[str, str]) -> Figure | None:
        """Finds the variant that a run of the recipe is.

        Args:
            changed: the fields that the run sets otherwise, each as ``field=value``.
            streams: role -> stream that it reads.

        Returns:
            The one of the same head whose changes are exactly these. Of several, the one that names most of the
            streams, then the first.
        """
        fitting = [
            one
            for one in self.figures
            if one.change and not one.head and {f"{name}={value}" for name, value in one.change.items()} == set(changed)
        ]
        fitting = [one for one in fitting if one.streams.items() <= streams.items()]
        return max(fitting, key=lambda one: len(one.streams), default=None)
