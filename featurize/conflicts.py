"""What stops a run before it touches an existing cache: another corpus, another key, features that would be lost."""

from collections.abc import Mapping, Sequence

from cache.errors import MmerError
from cache.layout import StreamPlan
from cache.store import FeatureCache
from cache.stream import StreamSpec
from featurize.plan import Inputs


def check_same_corpus(cache: FeatureCache, corpus: str, inputs: Inputs) -> None:
    """Refuses a cache of another corpus, or of other utterances altogether.

    Raises:
        MmerError: in either case.
    """
    held = cache.layout.header["corpus"].get("name")
    if held != corpus:
        raise MmerError(f"{cache.path} holds the corpus {held}, not {corpus}; name another file by --cache")
    if not {utterance.id for utterance in inputs.utterances} & set(cache.ids):
        raise MmerError(
            f"{cache.path} holds {len(cache)} other utterances (first: {cache.ids[0]}) and none of {inputs.root}; "
            "name another file by --cache"
        )


def check_same_keys(cache: FeatureCache, streams: Sequence[StreamPlan]) -> None:
    """Refuses to mix rows of two keys in one stream.

    Raises:
        MmerError: with the fields that differ, and another name.
    """
    for stream in streams:
        name = stream.spec.name
        if name in cache.streams and cache.streams[name].key != stream.spec.key:
            changed = "; ".join(cache.streams[name].spec.differences(stream.spec))
            raise MmerError(
                f"{name} of {cache.path} was computed otherwise ({changed}); --replace recomputes it"
                f"{_another_name(stream.spec)}"
            )


def check_same_encoders(cache: FeatureCache, streams: Sequence[StreamPlan]) -> None:
    """Refuses to keep streams of two encoders under one name, by which the weights that heads start from are kept.

    Raises:
        MmerError: with the stream of the other encoder, and another name.
    """
    for stream in streams:
        for name in others_of(cache, stream.spec):
            raise MmerError(
                f"{name} of {cache.path} is of another encoder called {stream.spec.encoder}; --replace drops it"
                f"{_another_name(stream.spec)}"
            )


def others_of(cache: FeatureCache, spec: StreamSpec) -> list[str]:
    """Names the streams of a file that another encoder made under the name of this one."""
    held = [
        one.spec for one in cache.streams.values() if one.spec.encoder == spec.encoder and one.spec.role == spec.role
    ]
    return [one.name for one in held if encoder_of(one) != encoder_of(spec)]


def refuse_lost(cache: FeatureCache, lost: Mapping[str, str]) -> None:
    """Refuses to give up features that a run would drop.

    Args:
        cache: the file as it is.
        lost: utterance id -> why its features would go.

    Raises:
        MmerError: if there are any, with the first of them.
    """
    if lost:
        first, why = next(iter(lost.items()))
        raise MmerError(
            f"{cache.path} holds features of {len(lost)} utterances that this run would drop (first: {first}: {why}); "
            "bring them back, name another file by --cache, or let them go by --replace"
        )


def encoder_of(spec: StreamSpec) -> tuple[str, str, str]:
    """Gives what makes two encoders one: source, revision, weights."""
    return spec.source, spec.revision, spec.weights


def _another_name(spec: StreamSpec) -> str:
    if spec.role == "chars":
        return ""
    name = spec.encoder.split("+history")[0]
    layers = "" if spec.layers in {"last", "quantizer", "tokenizer"} else f"@{spec.layers}"
    return f", or keep both under another name, as in --encoder {name}-2={spec.source}{layers}"
