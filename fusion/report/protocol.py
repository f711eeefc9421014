"""Protocol card: who is in train, dev and test, what chose the epoch, what the encoders had seen, and what leaks.

Counts and overlaps are computed from splits.csv and the utterances of the cache, not copied from notes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from fusion.protocols.known_encoders import seen_corpora
from fusion.report.finished import FinishedRun
from fusion.report.page import Block, Facts, Section, Table
from fusion.run.artifacts import LEFT_OUT
from fusion.run.score_table import protocol_text

SUBSETS = ("train", "dev", "test")
FOLD = "fold "  # start of the column of a fold in splits.csv
LISTED = 6  # speakers that are named
MOST_FOLDS = 30  # rows of the table of folds


def protocol_section(runs: Sequence[FinishedRun]) -> Section:
    """Returns the protocol card of each run, and the utterances of each fold of the first."""
    facts = [_facts(run) for run in runs]
    shared = [row for row in facts[0] if all(row in rows for rows in facts[1:])]
    blocks: list[Block] = [Facts(rows=shared, caption="All runs" if len(runs) > 1 else "")] if shared else []
    for run, rows in zip(runs, facts, strict=True):
        if rest := [row for row in rows if row not in shared]:
            blocks.append(Facts(rows=rest, caption=run.name))
    if table := fold_table(runs[0]):
        blocks.append(table)
    if counts := class_table(runs[0]):
        blocks.append(counts)
    lead = "Who is in train, dev and test, what chose the epoch, and what the encoders had seen before."
    return Section(name="protocol", heading="Protocol", lead=lead, blocks=blocks)


def differences_table(runs: Sequence[FinishedRun]) -> Table | None:
    """Returns the settings in which runs differ; None for a single run and for equal settings."""
    settings = [_settings(run) for run in runs]
    names = list(dict.fromkeys(name for found in settings for name in found))
    texts = {name: [found.get(name, "-") for found in settings] for name in names}
    rows = [[name, *values] for name, values in texts.items() if len(set(values)) > 1]
    if not rows:
        return None
    return Table(
        header=["setting", *(run.name for run in runs)], rows=rows, caption="Settings in which the runs differ"
    )


def sentence(run: FinishedRun) -> str:
    """Returns what was run, in one sentence."""
    folds, seeds = len(run.identity["folds"]), len(run.identity["seeds"])
    read = " and ".join(f"{name} ({role})" for role, name in run.streams.items())
    of_streams = f" on {read}" if read else ""
    recipe = f", with the settings of {run.identity['recipe']}," if run.identity.get("recipe") else ""
    tested = len({row.row["id"] for row in run.rows})
    trained = "fitted" if run.identity["fusion"] == "probe" else "trained"
    return (
        f"The head {run.identity['fusion']}{of_streams}{recipe} was {trained} and tested on {tested:,} utterances of "
        f"{run.corpus} in {_count(len(run.labels), 'class', 'classes')}, by {_count(folds, 'fold')} of protocol "
        f"{protocol_text(run.results)} and {_count(seeds, 'seed')}."
    )


def fold_table(run: FinishedRun) -> Table | None:
    """Returns utterances and speakers of each subset of each fold; None where the run does not record them."""
    members = _members(run)
    if not members:
        return None
    header = ["fold", "train", "dev", "test", "test speakers"]
    rows = []
    for fold, subsets in list(members.items())[:MOST_FOLDS]:
        cells = [f"{len(subsets.get(name, [])):,}" for name in SUBSETS]
        rows.append([fold, *cells, _listed(_speakers(run, subsets.get("test", [])))])
    more = f" ({len(members) - MOST_FOLDS} more folds are not shown)" if len(members) > MOST_FOLDS else ""
    return Table(header=header, rows=rows, caption=f"Utterances of each fold{more}")


def class_table(run: FinishedRun) -> Table | None:
    """Returns the test utterances of each class and fold."""
    members = _members(run)
    if not members or not run.task.has_classes or len(members) > MOST_FOLDS:
        return None
    label_of = {row["id"]: row.get("label", "") for row in run.subsets}
    by_fold = {fold: Counter(label_of[name] for name in subsets.get("test", [])) for fold, subsets in members.items()}
    rows = [[name, *(f"{counts[name]:,}" for counts in by_fold.values()), ""] for name in run.labels]
    rows = [[*row[:-1], f"{sum(counts[row[0]] for counts in by_fold.values()):,}"] for row in rows]
    folds = [f"fold {fold}" for fold in by_fold]
    return Table(header=["class", *folds, "all"], rows=rows, caption="Test utterances of each class")


def _facts(run: FinishedRun) -> list[tuple[str, str, bool]]:
    notes = list(map(str, run.record.get("notes", ())))
    identity, facts = run.identity, []
    promise = next((note for note in notes if note.startswith(f"{identity['protocol']}:")), identity["protocol"])
    facts.append(("Folds", promise, False))
    facts += _overlaps(run)
    training = identity.get("training", {})
    if training:
        patience = (
            f"; training ends after {training['patience']} epochs without a better one"
            if training.get("patience")
            else ""
        )
        title = run.task.score(str(training.get("monitor", "wf1"))).title
        facts.append(("Epoch chosen by", f"{title} on dev{patience}. Each test subset is scored once.", False))
    facts.append(_labels_fact(run))
    facts += _encoder_facts(run)
    tags = {str(spec.get("preprocessing", {}).get("event_tags", "")) for spec in run.record.get("specs", {}).values()}
    kept = {"strip": "removed from transcripts", "keep": "read as a part of transcripts"}
    facts += [("Event tags", kept.get(tag, tag), tag == "keep") for tag in sorted(tags) if tag]
    left = sum(LEFT_OUT in row.values() and row.get("label", "") != "" for row in run.subsets)
    if left:
        facts.append(("Left out", f"{left:,} utterances of the label set are in no subset of a fold", False))
    allowed = [name for name, value in run.record.get("allowed", {}).items() if value]
    facts += [("Allowed", f"--allow-{name} was passed", True) for name in allowed]
    shown = {text for _, text, _ in facts}
    others = [note for note in dict.fromkeys([*notes, *map(str, run.results.get("notes", ()))]) if note not in shown]
    skipped = ("frozen features of", "epochs are selected on dev")
    facts += [("Note", note, False) for note in others if not note.startswith(skipped) and note != promise]
    return facts


def _settings(run: FinishedRun) -> dict[str, str]:
    """Returns head, streams and fields of a run as texts."""
    identity = run.identity
    fields = {**identity.get("head", {}), **identity.get("training", {})}
    recipe, seeds = identity.get("recipe") or "-", {"seeds": ", ".join(map(str, identity["seeds"]))}
    named = {"head": identity["fusion"], "recipe": recipe, "protocol": protocol_text(run.results)}
    return {name: str(value) for name, value in {**named, **run.streams, **fields, **seeds}.items()}


def _labels_fact(run: FinishedRun) -> tuple[str, str, bool]:
    if not run.task.has_classes:
        return "Target", ", ".join(run.labels), False
    merged = [
        f"{name} ({' + '.join(raws)})" if list(raws) != [name] else name
        for name, raws in run.identity["labels"].items()
    ]
    return "Classes", ", ".join(merged), False


def _encoder_facts(run: FinishedRun) -> list[tuple[str, str, bool]]:
    """Returns what each encoder is and what it has seen."""
    facts = []
    for role, spec in run.record.get("specs", {}).items():
        if role not in run.streams:
            continue
        source, tuned = str(spec.get("source", "")), role in run.identity.get("tune", {})
        seen = [*seen_corpora(source), *_trained_on(spec.get("trained_on") or {})]
        state = "learns with the head" if tuned else "frozen"
        history = f"; had seen {', '.join(seen)}" if seen else "; no emotion corpus in its record"
        layers = str(spec.get("layers", "last"))
        layer = "" if layers == "last" else f", layers {layers}"
        name = run.streams[role] if source in {"", run.streams[role]} else f"{run.streams[role]} ({source})"
        facts.append((f"Encoder of {role}", f"{name}{layer}, {state}{history}", run.corpus in seen))
    return facts


def _trained_on(record: object) -> list[str]:
    """Returns the corpora in the record of an encoder that was trained further."""
    if not isinstance(record, dict):
        return []
    return [str(record[name]) for name in ("corpus", "name") if isinstance(record.get(name), str)]


def _overlaps(run: FinishedRun) -> list[tuple[str, str, bool]]:
    """Returns what train and test of a fold share: speakers, dialogues, transcripts."""
    members = _members(run)
    if not members or not run.utterances:
        return []
    facts = []
    for term, column in (("Speakers", "speaker"), ("Dialogues", "dialogue")):
        shared, known = 0, False
        for subsets in members.values():
            train, test = (_values(run, subsets.get(name, []), column) for name in ("train", "test"))
            shared, known = shared + len(train & test), known or bool(test)
        if known:
            of_test = (
                f"{shared} of the test subsets are also in train" if shared else "none of a test subset is in train"
            )
            facts.append((term, of_test, shared > 0))
        elif column == "speaker":
            facts.append((term, "the corpus names none, so that an overlap cannot be seen", True))
    if share := _shared_texts(run, members):
        facts.append(("Transcripts", share, False))
    return facts


def _shared_texts(run: FinishedRun, members: dict[str, dict[str, list[str]]]) -> str:
    same = total = 0
    for subsets in members.values():
        train = {_plain(run, name) for name in subsets.get("train", [])}
        texts = [_plain(run, name) for name in subsets.get("test", [])]
        texts = [text for text in texts if text]
        same, total = same + sum(text in train for text in texts), total + len(texts)
    if not total or not same:
        return ""
    return f"{100 * same / total:.0f}% of the test utterances have the words of a training utterance"


def _plain(run: FinishedRun, name: str) -> str:
    utterance = run.utterances.get(name)
    return " ".join(utterance.text.lower().split()) if utterance else ""


def _members(run: FinishedRun) -> dict[str, dict[str, list[str]]]:
    """Returns fold -> subset -> ids, from splits.csv; parts of a test subset count as test."""
    members: dict[str, dict[str, list[str]]] = {}
    for row in run.subsets:
        for column, subset in row.items():
            if column and column.startswith(FOLD) and subset != LEFT_OUT:
                of_fold = members.setdefault(column.removeprefix(FOLD), {})
                of_fold.setdefault(subset if subset in SUBSETS else "test", []).append(row["id"])
    return members


def _values(run: FinishedRun, names: Iterable[str], column: str) -> set[str]:
    found = (getattr(run.utterances[name], column) for name in names if name in run.utterances)
    return {value for value in found if value}


def _speakers(run: FinishedRun, names: Iterable[str]) -> list[str]:
    return sorted(_values(run, names, "speaker"))


def _listed(names: Sequence[str]) -> str:
    if len(names) > LISTED:
        return f"{len(names)} speakers"
    return ", ".join(names) or "-"


def _count(number: int, name: str, several: str = "") -> str:
    return f"{number:,} {name if number == 1 else several or f'{name}s'}"
