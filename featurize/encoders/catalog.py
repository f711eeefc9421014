"""Catalog of encoders with a short name, and the syntax ``[NAME=]SOURCE[@LAYERS]`` of the command line."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.errors import MmerError
from cache.near_names import nearest

BUILT_IN = "built-in"
# Encoders that other programs run -> how their features come into a cache.
ELSEWHERE = {
    "emotion2vec": "its own scripts compute its features, and `mmer-cache import DIR FILE` adds them",
}


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """One row of the catalog.

    Attributes:
        source: hub id, or ``built-in`` for encoders without files.
        modality: ``speech`` or ``text``.
        role: role of its stream: audio, mel, patches or text.
        dim: number of values of a row.
        rate_hz: rows per second of speech, 0 for text.
        paper: arXiv number or DOI of the publication.
    """

    source: str
    modality: str
    role: str
    dim: int
    rate_hz: float
    paper: str


def _speech(source: str, dim: int, paper: str, rate_hz: float = 50, role: str = "audio") -> EncoderSpec:
    return EncoderSpec(source=source, modality="speech", role=role, dim=dim, rate_hz=rate_hz, paper=paper)


def _patches(source: str, dim: int, paper: str) -> EncoderSpec:
    return _speech(source, dim, paper, rate_hz=31.25, role="patches")


def _text(source: str, dim: int, paper: str) -> EncoderSpec:
    return EncoderSpec(source=source, modality="text", role="text", dim=dim, rate_hz=0, paper=paper)


ENCODERS: Mapping[str, EncoderSpec] = {
    "wav2vec2-base": _speech("facebook/wav2vec2-base", 768, "arXiv:2006.11477"),
    "wav2vec2-base-960h": _speech("facebook/wav2vec2-base-960h", 768, "arXiv:2006.11477"),
    "wav2vec2-large": _speech("facebook/wav2vec2-large", 1024, "arXiv:2006.11477"),
    "hubert-base": _speech("facebook/hubert-base-ls960", 768, "arXiv:2106.07447"),
    "hubert-large": _speech("facebook/hubert-large-ll60k", 1024, "arXiv:2106.07447"),
    "wavlm-base": _speech("microsoft/wavlm-base", 768, "arXiv:2110.13900"),
    "wavlm-base-plus": _speech("microsoft/wavlm-base-plus", 768, "arXiv:2110.13900"),
    "wavlm-large": _speech("microsoft/wavlm-large", 1024, "arXiv:2110.13900"),
    "wav2vec2-conformer-rel-pos-large": _speech("facebook/wav2vec2-conformer-rel-pos-large", 1024, "arXiv:2010.05171"),
    "wav2vec2-conformer-rope-large": _speech("facebook/wav2vec2-conformer-rope-large", 1024, "arXiv:2010.05171"),
    "data2vec-audio-base": _speech("facebook/data2vec-audio-base", 768, "arXiv:2202.03555"),
    "xls-r-300m": _speech("facebook/wav2vec2-xls-r-300m", 1024, "arXiv:2111.09296"),
    "mms-300m": _speech("facebook/mms-300m", 1024, "arXiv:2305.13516"),
    "mms-1b": _speech("facebook/mms-1b", 1280, "arXiv:2305.13516"),
    "unispeech-sat-base-plus": _speech("microsoft/unispeech-sat-base-plus", 768, "arXiv:2110.05752"),
    "unispeech-sat-large": _speech("microsoft/unispeech-sat-large", 1024, "arXiv:2110.05752"),
    "w2v-bert-2.0": _speech("facebook/w2v-bert-2.0", 1024, "arXiv:2312.05187"),
    "whisper-tiny": _speech("openai/whisper-tiny", 384, "arXiv:2212.04356"),
    "whisper-tiny.en": _speech("openai/whisper-tiny.en", 384, "arXiv:2212.04356"),
    "whisper-base": _speech("openai/whisper-base", 512, "arXiv:2212.04356"),
    "whisper-small": _speech("openai/whisper-small", 768, "arXiv:2212.04356"),
    "whisper-medium": _speech("openai/whisper-medium", 1024, "arXiv:2212.04356"),
    "whisper-large-v2": _speech("openai/whisper-large-v2", 1280, "arXiv:2212.04356"),
    "whisper-large-v3": _speech("openai/whisper-large-v3", 1280, "arXiv:2212.04356"),
    "whisper-large-v3-turbo": _speech("openai/whisper-large-v3-turbo", 1280, "arXiv:2212.04356"),
    "vit-mel-base": _patches("google/vit-base-patch16-224-in21k", 768, "arXiv:2010.11929"),
    "roberta-base": _text("FacebookAI/roberta-base", 768, "arXiv:1907.11692"),
    "roberta-large": _text("FacebookAI/roberta-large", 1024, "arXiv:1907.11692"),
    "bert-base": _text("google-bert/bert-base-uncased", 768, "arXiv:1810.04805"),
    "distilbert-base": _text("distilbert/distilbert-base-uncased", 768, "arXiv:1910.01108"),
    "deberta-v3-base": _text("microsoft/deberta-v3-base", 768, "arXiv:2111.09543"),
    "xlm-roberta-base": _text("FacebookAI/xlm-roberta-base", 768, "arXiv:1911.02116"),
    "multilingual-e5-base": _text("intfloat/multilingual-e5-base", 768, "arXiv:2402.05672"),
    "modernbert-base": _text("answerdotai/ModernBERT-base", 768, "arXiv:2412.13663"),
    "logmel80": _speech(BUILT_IN, 80, "doi:10.1109/TASSP.1980.1163420", rate_hz=100, role="mel"),
    "mfcc39": _speech(BUILT_IN, 39, "doi:10.1109/TASSP.1980.1163420", rate_hz=100),
    "wav2vec2-tiny": _speech(BUILT_IN, 64, "arXiv:2006.11477"),
    "vit-mel-tiny": _patches(BUILT_IN, 64, "arXiv:2010.11929"),
    "roberta-tiny": _text(BUILT_IN, 64, "arXiv:1907.11692"),
}


@dataclass(frozen=True, kw_only=True)
class EncoderRequest:
    """A requested encoder: ``[NAME=]SOURCE[@LAYERS]``.

    Attributes:
        name: name of its streams.
        source: catalog name, hub id or folder.
        layers: texts after ``@``, each a stream of its own; ``last`` if none is given.
    """

    name: str
    source: str
    layers: tuple[str, ...]

    @property
    def location(self) -> str:
        """Location of its checkpoint: the hub id of a catalog name, any other source unchanged."""
        spec = ENCODERS.get(self.source)
        return self.source if spec is None or spec.source == BUILT_IN else spec.source


def parse_requests(texts: Sequence[str]) -> list[EncoderRequest]:
    """Reads encoder requests; several requests for layers of one encoder become one request and one pass.

    Raises:
        MmerError: if a text is invalid or repeated, a source is unknown, or two sources share a name.

    Example:
        >>> parse_requests(["roberta-base", "roberta-base@4"])
        [EncoderRequest(name='roberta-base', source='roberta-base', layers=('last', '4'))]
    """
    requests: dict[str, EncoderRequest] = {}
    for text in texts:
        request = _parse_request(text)
        name, source, layers = request.name, request.source, request.layers
        earlier = requests.get(name)
        if earlier and earlier.source != source:
            raise MmerError(
                f"{earlier.source} and {source} would both be called {name}; "
                f"rename one of them, as in --encoder {name}-2={source}"
            )
        if earlier and layers[0] in earlier.layers:
            raise MmerError(f"encoder {text} is requested twice; give it once")
        layers = (*earlier.layers, *layers) if earlier else layers
        requests[name] = EncoderRequest(name=name, source=source, layers=layers)
    return list(requests.values())


def _parse_request(text: str) -> EncoderRequest:
    match = re.fullmatch(r"(?:([^=/@]*)=)?(.+?)(?:@([^@/]*))?", text)
    if not match or match[1] == "" or match[3] == "":
        raise MmerError(f"invalid encoder {text!r}; expected [NAME=]SOURCE[@LAYERS], such as bert-base@12")
    source, layers = match[2], match[3]
    whole = text.removeprefix(f"{match[1]}=") if match[1] else text
    if Path(whole).is_dir():  # a folder may have an @ in its name
        source, layers = whole.rstrip("/") or whole, None
    _check_source(source)
    name = match[1] or Path(source).name
    if name in {"", ".", ".."} or "@" in name or not name.isprintable():
        raise MmerError(f"encoder {text!r} needs a plain name without @, as in --encoder NAME={source!r}")
    if name == "ctc.chars" or name.endswith((".codes", ".tokens")):
        raise MmerError(
            f"the name {name} is reserved for another kind of stream; choose another, as in --encoder NAME={source}"
        )
    plain = re.sub(r"\d+", lambda number: str(int(number[0])), layers or "last")  # 01 is layer 1
    return EncoderRequest(name=name, source=source, layers=(plain,))


def _check_source(source: str) -> None:
    if source in ENCODERS or Path(source).is_dir() or re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        return
    hint = ELSEWHERE.get(source.lower()) or nearest(source, ENCODERS)
    raise MmerError(f"unknown encoder {source!r}; {hint} (a hub id OWNER/NAME or a folder is accepted too)")
