"""Notes of a run: each once, equal notes of folds as one line, those that change what the scores mean first."""

import re
from collections.abc import Iterable, Iterator, Sequence

from fusion.fingerprint import Plain
from fusion.run.artifacts import OVER_LIMITS

SHOWN = 5  # utterances over the limits of a head that a note lists; scores.json of each fold has all of them
OF_FOLD = re.compile(r"fold (?P<fold>.+?): (?P<text>.+)", re.DOTALL)
COUNT = re.compile(r"(?<![\w.])\d+(?= of \d+\b)|(?<= of )\d+\b|^\d+(?= utterances)|(?<=dev is )\d+(?=% )")

# A note that has these words limits what the scores mean: scores that know the test, or that lack a part of it.
LIMITS = (
    "has seen",
    "was trained on",
    "identical recordings",
    "have a transcript of",
    "test speakers are in",
    "have no speaker",
    "speaker-dependent",
    "left out",
    "too few to say much",
    "longer than the head",
    "has no utterance of class",
    "lack a class",
    "predict a single class",
    "loss of the first epoch",
    "not nested",
    "recordings are in the run's corpus",
    "event tags",
)


def arrange(notes: Iterable[str]) -> list[str]:
    """Returns notes in the order of their importance, each once.

    Notes of folds that are equal apart from counts become one line with the range of each count. Notes that limit what
    the scores mean come first; otherwise the order stays.

    Example:
        >>> twice = ["fold 1: 3 of 64 utterances are left out", "fold 2: 5 of 64 utterances are left out"]
        >>> arrange(["frozen features of voice", *twice, "frozen features of voice"])
        ['folds 1, 2: 3 to 5 of 64 utterances are left out', 'frozen features of voice']
    """
    merged = _merge_folds(dict.fromkeys(notes))
    return sorted(merged, key=lambda note: not limits(note))


def limits(note: str) -> bool:
    """Checks whether a note limits what the scores mean; such notes are printed in any case.

    Example:
        >>> limits("fold 1: the encoder of voice has seen speaker 1F of test"), limits("frozen features of voice")
        (True, False)
    """
    return any(words in note for words in LIMITS)


def head_notes(folds: Sequence[Plain]) -> Iterator[str]:
    """Yields the notes of the head and a note on utterances over its limits.

    A note that not all folds have names its fold.

    Args:
        folds: scores of each model, as `collect_results` returns them.
    """
    for scores in folds:
        for note in scores["notes"]:
            yield note if all(note in other["notes"] for other in folds) else f"fold {scores['fold']}: {note}"
    over = {subset: _over_limits(folds, key) for subset, key in OVER_LIMITS.items()}
    names = list(dict.fromkeys(name for utterances in over.values() for name in utterances))
    if names:
        counts = ", ".join(f"{len(utterances)} {subset}" for subset, utterances in over.items() if utterances)
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        text = "utterances are longer than the head can read in full"
        yield f"{counts} {text}: {', '.join(names[:SHOWN])}{more}"


def _merge_folds(notes: Iterable[str]) -> list[str]:
    """Joins the notes of folds that are equal apart from counts, in the place of the first."""
    alike: dict[str, list[tuple[str, str]]] = {}
    for note in notes:
        found = OF_FOLD.fullmatch(note)
        fold, text = (found["fold"], found["text"]) if found else ("", note)
        alike.setdefault(f"fold: {COUNT.sub('N', text)}" if found else note, []).append((fold, text))
    return [_joined([fold for fold, _ in held], [text for _, text in held]) for held in alike.values()]


def _joined(folds: Sequence[str], texts: Sequence[str]) -> str:
    if not folds[0]:
        return texts[0]
    ranges = iter([_range(counts) for counts in zip(*(map(int, COUNT.findall(text)) for text in texts), strict=True)])
    text = COUNT.sub(lambda _: next(ranges), texts[0])
    return f"fold{'s' if len(folds) > 1 else ''} {', '.join(folds)}: {text}"


def _range(counts: Sequence[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"


def _over_limits(folds: Sequence[Plain], key: str) -> list[str]:
    """Returns the utterances under a key of all folds.

    A late fusion of runs has only the key of the test subset.
    """
    return list(dict.fromkeys(name for scores in folds for name in scores.get(key, ())))
