"""Model card of a bundle: ``README.md`` with the metadata of the Hugging Face hub, and what a user must know.

Names and notes come from the run folder, which may be a stranger's: each is one line, and its signs that steer
Markdown, HTML or a terminal are written as entities.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from cache.json_text import is_number
from cache.stream import SPEECH, StreamSpec
from fusion.end_to_end.prediction.models import RunModels
from fusion.end_to_end.sharing.licences import CORPUS_LANGUAGES, CORPUS_LICENCES, UNKNOWN, encoder_licence
from fusion.evaluation.task import Score
from fusion.head_config import AUDIO, TEXT
from fusion.heads.build import count_parameters
from fusion.heads.catalog import HEADS
from fusion.protocols.known_encoders import seen_corpora

NOT_PLAIN = re.compile(r"[^\w .,:;%+=()/-]|(?<![^\W_])_|_(?![^\W_])|:(?=//)|(?<=www)\.", re.IGNORECASE)
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]+")
LONGEST = 300  # characters of a text from a run folder
MOST_CLASSES = 200  # names of classes in a card
HUB_METRICS: Mapping[str, str] = {
    "wa": "accuracy",
    "ua": "recall",
    "wf1": "f1",
    "mf1": "f1",
    "kl": "kl_divergence",
    "ccc": "concordance_correlation",
    "mae": "mae",
    "pearson": "pearsonr",
}
METRIC_NAMES: Mapping[str, str] = {
    "wa": "WA (accuracy)",
    "ua": "UA (unweighted average recall)",
    "wf1": "weighted F1",
    "mf1": "macro F1",
    "kl": "KL divergence from the votes, in nats",
    "ccc": "CCC (concordance correlation coefficient)",
    "mae": "MAE, in units of the corpus",
    "pearson": "Pearson correlation",
}


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """Content of a model card.

    Attributes:
        name: name of the bundle or of its repository.
        record: content of run.json.
        results: scores of the run, as in results.json.
        models: models in the bundle.
        license: identifier of the licence of the models, such as ``mit``; empty if the user names none.
        language: code of the language of the speech, such as ``en``; empty for that of a known corpus.
    """

    name: str
    record: Mapping[str, Any]
    results: Mapping[str, Any]
    models: RunModels
    license: str = ""
    language: str = ""

    @property
    def corpus(self) -> str:
        """The name of the corpus; that of the cache for a manifest."""
        name = str(self.record.get("corpus", {}).get("name", ""))
        cache = Path(str(self.record.get("cache", ""))).name.removesuffix(".h5")
        return cache if name in {"", "manifest"} and cache else name

    @property
    def outputs(self) -> str:
        """The word for the outputs of the models: labels or dimensions."""
        return "labels" if self.models.task.has_classes else "dimensions"

    @property
    def specs(self) -> dict[str, StreamSpec]:
        """The streams that the models read, by their names."""
        return {spec.name: spec for model in self.models.models for spec in model.specs.values()}


def model_card(facts: CardFacts) -> str:
    """Returns the text of a model card, metadata included.

    Args:
        facts: what it states.
    """
    sections = [_title(facts), _use(facts), _data(facts), _scores(facts), _encoders(facts), _limits(facts)]
    text = "\n\n".join("\n".join(lines) for lines in sections)
    content = f"---\n{_metadata(facts).to_yaml()}\n---\n\n{text}\n"
    return str(ModelCard(content).content)


def plain(text: object) -> str:
    r"""Returns a text as one line in which nothing is Markdown or HTML.

    Args:
        text: text from a run folder.

    Example:
        >>> plain("happy_2 | <b>*sad*</b>\n# https://x.y")
        'happy_2 &#124; &#60;b&#62;&#42;sad&#42;&#60;/b&#62; &#35; https&#58;//x.y'
    """
    return NOT_PLAIN.sub(lambda sign: f"&#{ord(sign[0])};", one_line(text))


def one_line(text: object) -> str:
    """Returns a text as one line of limited length, without signs that steer a terminal."""
    line = " ".join(UNSEEN.sub(" ", str(text)).split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _metadata(facts: CardFacts) -> ModelCardData:
    corpus, protocol = one_line(facts.corpus), one_line(facts.record["decides"]["protocol"])
    mean = facts.results.get("mean", {})
    results = [
        EvalResult(
            task_type="audio-classification",
            task_name="Speech emotion recognition",
            dataset_type=corpus or "unknown",
            dataset_name=corpus or "unknown",
            dataset_config=protocol,
            metric_type=HUB_METRICS[score.name],
            metric_name=METRIC_NAMES[score.name],
            metric_value=round(float(mean[score.name]), 6),
        )
        for score in facts.models.task.scores
        if is_number(mean.get(score.name))
    ]
    language = facts.language or CORPUS_LANGUAGES.get(corpus, "")
    return ModelCardData(
        language=one_line(language) or None,
        license=one_line(facts.license) or None,
        library_name="mmer",
        pipeline_tag="audio-classification" if _reads(facts, speech=True) else "text-classification",
        tags=["mmer", "speech-emotion-recognition", "emotion-recognition", *_modalities(facts)],
        datasets=[corpus] if corpus else None,
        metrics=sorted({HUB_METRICS[result.name] for result in facts.models.task.scores}),
        base_model=sorted({spec.source for spec in facts.specs.values() if "/" in spec.source}) or None,
        model_name=one_line(facts.name) if results else None,
        eval_results=results or None,
    )


def _title(facts: CardFacts) -> list[str]:
    reads = " and ".join({AUDIO: "speech", TEXT: "text"}[name] for name in _modalities(facts))
    head = str(facts.record["decides"]["fusion"])
    summary = f": {HEADS[head].summary} ({HEADS[head].paper})" if head in HEADS else ", code outside mmer"
    parameters = count_parameters(facts.models.models[0].head)
    return [
        f"# {plain(facts.name)}",
        "",
        f"Emotion recognition from {reads}. Written by `mmer-export`.",
        "",
        "| what | value |",
        "|---|---|",
        f"| {facts.outputs} | {_listed(facts.models.classes)} |",
        f"| head | {plain(head)}{plain(summary)} |",
        f"| parameters that were trained | {parameters:,} in each of {len(facts.models.models)} models |",
        f"| prediction | {plain(facts.models.source)} |",
    ]


def _use(facts: CardFacts) -> list[str]:
    head = str(facts.record["decides"]["fusion"])
    code = "" if head in HEADS else " --head MODULE:CLASS"
    text = ' --text "where have you been"' if _reads(facts, speech=False) else ""
    file = " call.wav" if _reads(facts, speech=True) else ""
    name = re.sub(r"[^\w./-]", "_", facts.name)
    lines = [
        "## How to use it",
        "",
        "```console",
        "$ pip install .  # in a clone of mmer",
        f"$ mmer-predict hf:{name}{file}{text}{code}" if "/" in name else f"$ mmer-predict {name}{file}{text}{code}",
        "```",
    ]
    return lines if head in HEADS else [*lines, "", f"The code of head {plain(head)} is not in the bundle."]


def _data(facts: CardFacts) -> list[str]:
    identity = facts.record["decides"]
    known = facts.corpus.casefold()
    filters = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in _items(identity.get("only")))
    labels = list(identity["labels"].items())[:MOST_CLASSES]
    targets = [
        ("label set", facts.record.get("label_set", "")),
        *((f"label {name}", ", ".join(raws)) for name, raws in labels),
    ]
    everyone = "all with a label of the label set" if facts.models.task.has_classes else "all with ratings"
    rows = [
        ("corpus", facts.corpus or UNKNOWN),
        ("licence of the corpus", CORPUS_LICENCES.get(known, UNKNOWN)),
        ("utterances", f"only those with {filters}" if filters else everyone),
        *([("target", identity["target"])] if "target" in identity else []),
        *(targets if facts.models.task.has_classes else []),
        ("protocol", identity["protocol"]),
        ("folds, seeds", f"{len(identity['folds'])} folds; seeds {', '.join(map(str, identity['seeds']))}"),
    ]
    notes = [f"- {plain(note)}" for note in facts.record.get("notes", [])]
    table = [f"| {plain(name)} | {plain(value)} |" for name, value in rows]
    lines = ["## Training data and protocol", "", "| what | value |", "|---|---|", *table]
    return [*lines, "", *notes] if notes else lines


def _scores(facts: CardFacts) -> list[str]:
    results = facts.results
    unit = ", in percent" if facts.models.task.is_classification else ""
    lines = [
        "## Scores",
        "",
        f"Test subsets of all folds{unit}. The interval is the 95% bootstrap interval of the pooled scores over "
        "speakers or dialogues.",
        "",
        "| score | mean of the folds | pooled | 95% interval |",
        "|---|---|---|---|",
    ]
    for score in facts.models.task.scores:
        cells = [_number(score, results, "mean"), _number(score, results, "pooled"), _interval(score, results)]
        lines.append(f"| {METRIC_NAMES[score.name]} | {' | '.join(cells)} |")
    if recall := [(name, value) for name, value in _items(results.get("recall")) if is_number(value)]:
        lines += ["", "Recall: " + ", ".join(f"{plain(name)} {100 * value:.2f}" for name, value in recall) + "."]
    if any(model.fold == "final" for model in facts.models.models):
        lines += ["", "The model in this bundle was trained on all utterances and has no score of its own."]
    return lines


def _encoders(facts: CardFacts) -> list[str]:
    lines = [
        "## Encoders",
        "",
        "| encoder | layers | source | revision | licence | emotion data that it has seen |",
        "|---|---|---|---|---|---|",
    ]
    tuned = facts.record["decides"].get("tune", {})
    for role, spec in {role: spec for model in facts.models.models for role, spec in model.specs.items()}.items():
        where = spec.source if spec.encoder.partition("+")[0] not in facts.models.encoders else "in this bundle"
        seen = _seen(spec) + (f"; tuned on {facts.corpus} ({tuned[role]}), in this bundle" if role in tuned else "")
        cells = (spec.encoder, spec.layers, where, spec.revision[:12] or "-", encoder_licence(spec.source), seen)
        lines.append(f"| {' | '.join(map(plain, cells))} |")
    return lines


def _limits(facts: CardFacts) -> list[str]:
    corpus = plain(facts.corpus or "its corpus")
    language = plain(facts.language or CORPUS_LANGUAGES.get(facts.corpus, "") or "the language of the corpus")
    missing = [
        "- It needs speech and text of every recording: it was not trained with a missing modality."
        for head in [facts.models.models[0].head]
        if len(_modalities(facts)) > 1 and not head.config.modality_dropout
    ]
    return [
        "## Intended use and limits",
        "",
        f"Intended for research on emotion in speech. {_knows(facts)}",
        "",
        f"- Scores hold for {corpus} ({language}) under the protocol above. Other speakers, languages, microphones, "
        "noise, and spontaneous instead of acted speech lower them.",
        "- It estimates what listeners would label, not what a person feels. Do not use it for decisions about "
        "persons; in the European Union, emotion recognition at work and in education is restricted by law.",
        *(["- Probabilities are not calibrated."] if facts.models.task.has_classes else []),
        *missing,
        "- The licences of corpus and encoders apply in addition to that of this bundle.",
    ]


def _knows(facts: CardFacts) -> str:
    if facts.models.task.has_classes:
        return "It knows no emotion but the labels above, and always chooses one of them."
    return "It estimates the dimensions above on the scale of its corpus; values may lie outside this scale."


def _reads(facts: CardFacts, *, speech: bool) -> bool:
    return any((spec.consumes == SPEECH) == speech for spec in facts.specs.values())


def _modalities(facts: CardFacts) -> list[str]:
    return [name for name, speech in ((AUDIO, True), (TEXT, False)) if _reads(facts, speech=speech)]


def _seen(spec: StreamSpec) -> str:
    """Returns the emotion data that an encoder was trained on before the run."""
    record = spec.trained_on
    speakers = record.get("speakers")
    count = f", {len(speakers)} speakers" if isinstance(speakers, list) and speakers else ""
    recorded = [f"{record.get('corpus') or 'a corpus'}{count}"] if record else []
    return ", ".join([*recorded, *seen_corpora(spec.source)]) or "none known"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
    return ", ".join(map(plain, names[:MOST_CLASSES])) + more


def _items(values: object) -> list[tuple[Any, Any]]:
    return list(values.items()) if isinstance(values, dict) else []


def _number(score: Score, results: Mapping[str, Any], name: str) -> str:
    held = results.get(name)
    value = held.get(score.name) if isinstance(held, dict) else None
    return score.text(value) if is_number(value) else "-"


def _interval(score: Score, results: Mapping[str, Any]) -> str:
    held = results.get("interval")
    ends = held.get(score.name) if isinstance(held, dict) else None
    if not isinstance(ends, list) or len(ends) != 2 or not all(map(is_number, ends)):
        return "-"
    return " to ".join(map(score.text, ends))
