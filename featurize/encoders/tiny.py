"""Built-in encoders for the demo and the tests: real architectures with seeded random weights, no files.

``wav2vec2-tiny`` has the architecture of wav2vec2-base (Baevski et al., 2020, arXiv:2006.11477), quantizer included;
``roberta-tiny`` that of RoBERTa (Liu et al., 2019, arXiv:1907.11692); ``vit-mel-tiny`` that of ViT-base on 14 x 14
patches (Dosovitskiy et al., 2021, arXiv:2010.11929). They are not trained. The features of a random network still
differ where its inputs differ, which is enough for a linear probe on the demo corpus.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import TypeVar

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    ViTConfig,
    ViTModel,
    Wav2Vec2Config,
    Wav2Vec2ForPreTraining,
)

from featurize.corpora.demo.script import script_words

SEED = 2006
WORD_START = "Ġ"  # how byte-level tokenizers write the space before a word

# Ids 0 to 3 as in RoBERTa, whose mask token is the last of the vocabulary as well.
FIRST_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
MASK_TOKEN = "<mask>"

# Hand-picked frequent English words, so that ordinary text is not split into bytes; the words of the demo are added.
COMMON_WORDS = """
a able about above after again against age ago agree air all almost alone along already also although always am among
an and angry animal another answer any anyone anything are arm around arrive art as ask at away baby back bad bag ball
bank be beautiful because become bed been before began begin behind being believe below best better between big bird
bit black blue board boat body book both box boy break bring brother brought brown build business busy but buy by call
calm came can car care carry case catch cause change check child children choose city class clean clear close cold
color come complete corner could count country course cover cry cut dad dark day dead dear decide deep did die
different difficult dinner do doctor does dog done door down draw dream drink drive dry during each ear early earth
easy eat else empty end enjoy enough even evening ever every everyone everything eye face fact fall family far fast
father fear feel feet felt few field fight fill finally find fine fire first fish five floor fly follow food foot for
forget four free friend from front full fun funny game gave get girl give glad go goes going gone good got great green
ground group grow guess had hair half hand happen happy hard has hat hate have he head hear heard heart heavy held
hello help her here high him his hit hold home hope horse hot hour house how hundred hurt husband i ice idea if
imagine important in inside interest into is it its job just keep kept kind knew know lady land large last late laugh
lead learn least leave left leg less let letter life light like line list listen little live long look lose lost lot
love low lunch made make man many matter may maybe me mean meet men might mind mine minute miss moment money month
moon more morning most mother mouth move much music must my myself name near need never new news next nice night nine
no noise none nor not nothing notice now number of off office often oh ok okay old on once one only open or order
other our out outside over own page paper parent part party pass past pay people perhaps person phone picture piece
place plan plant play please point poor possible power problem promise put question quick quiet quite rain ran reach
read ready real really reason red remember rest rich ride right river road room round run sad safe said same sat saw
say school sea seat second see seem seen sell send set seven several shall she ship short should show shut sick side
simple since sing sister sit six sky sleep slow small smile so some someone something sometimes song soon sorry sort
sound south speak stand star start stay step still stone stop story strange street strong study such sudden sugar
summer sun sure surprise sweet table take talk tall teach tell ten than thank thanks that the their them then there
these they thing things think third this those though thought thousand three through time tired to today together told
tomorrow tonight too took top toward town tree tried true trust try turn twelve twenty two under understand until up
us use usual very visit voice wait walk wall want war warm was wash watch water way we wear weather week well went
were west what when where which while white who whole whose why wife will win wind window winter wish with without
woman women wonder wonderful word work world worry worse worst would write wrong wrote yeah year yellow yes yesterday
yet you young your
"""

Model = TypeVar("Model", bound=PreTrainedModel)


def build_wav2vec2_tiny() -> Wav2Vec2ForPreTraining:
    """Builds the speech encoder: 4 layers of width 64, a frame every 320 samples, 2 groups of 320 code vectors.

    Returns:
        The model in eval mode and float32; two calls give bit-equal weights.
    """
    config = Wav2Vec2Config(
        hidden_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=128,
        conv_dim=(64,) * 7,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=4,
        codevector_dim=64,
        proj_codevector_dim=64,
        apply_spec_augment=False,
    )
    return _seeded(lambda: Wav2Vec2ForPreTraining(config))


def build_vit_mel_tiny() -> ViTModel:
    """Builds the encoder of log-mel images: 6 layers of width 64 for RGB images of 224 x 224, as ViT-base's.

    Returns:
        The model without a pooler, in eval mode and float32; two calls give bit-equal weights.
    """
    config = ViTConfig(hidden_size=64, num_hidden_layers=6, num_attention_heads=4, intermediate_size=128)
    return _seeded(lambda: ViTModel(config, add_pooling_layer=False))


def build_roberta_tiny() -> RobertaModel:
    """Builds the text encoder: 9 layers of width 64, so that five follow the middle one (hidden state 4).

    Returns:
        The model without a pooler, in eval mode and float32; two calls give bit-equal weights.
    """
    config = _roberta_tiny_config()
    return _seeded(lambda: RobertaModel(config, add_pooling_layer=False))


def build_roberta_tiny_lm() -> RobertaForMaskedLM:
    """Builds the masked language model over the text encoder, with a seeded head.

    Returns:
        The model with the weights of `build_roberta_tiny`, in eval mode and float32; two calls give bit-equal weights.
    """
    config = _roberta_tiny_config()
    model = _seeded(lambda: RobertaForMaskedLM(config))
    model.roberta.load_state_dict(build_roberta_tiny().state_dict())
    return model


def build_roberta_tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Builds the tokenizer of the text encoder: common words whole, everything else byte by byte.

    Text is lower-cased. Character spans refer to the original text.
    """
    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(), merges=[], ignore_merges=True))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        cls_token="<s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=MASK_TOKEN,
        model_max_length=512,
    )


def _vocabulary() -> dict[str, int]:
    """Builds the token ids: special tokens, the 256 byte symbols, the whole words, and the mask token last."""
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [WORD_START + word for word in sorted({*COMMON_WORDS.split(), *script_words()})]
    return {token: index for index, token in enumerate([*FIRST_TOKENS, *symbols, *words, MASK_TOKEN])}


def _roberta_tiny_config() -> RobertaConfig:
    return RobertaConfig(
        vocab_size=len(_vocabulary()),
        hidden_size=64,
        num_hidden_layers=9,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )


def _seeded(build: Callable[[], Model]) -> Model:
    """Builds a model from the same random numbers every time; the caller's generators stay unchanged."""
    # As a context, a device slows every call of torch down, so there is one only if models would be built elsewhere.
    cpu = torch.device("cpu")
    with torch.random.fork_rng(devices=[]), nullcontext() if torch.get_default_device() == cpu else cpu:
        # torch.manual_seed would also seed the GPUs, whose state fork_rng does not restore here.
        torch.default_generator.manual_seed(SEED)
        model = build()
    model.train(False)
    return model
