"""A small ASR model with random weights, as a folder."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Processor,
)

CTC_SYMBOLS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGH")


def write_ctc_model(folder: Path, *, seed: int = 1) -> Path:
    """Writes a CTC model that spells random letters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({symbol: index for index, symbol in enumerate(CTC_SYMBOLS)}))
    torch.manual_seed(seed)
    config = Wav2Vec2Config(
        vocab_size=len(CTC_SYMBOLS),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    network = Wav2Vec2ForCTC(config)
    torch.nn.init.normal_(network.lm_head.weight, std=3.0)
    with torch.no_grad():
        network.lm_head.bias[1:4] = -1e4  # no special symbol but the blank
    network.save_pretrained(folder)
    parts: tuple[Any, Any, Any] = (Wav2Vec2FeatureExtractor, Wav2Vec2CTCTokenizer, Wav2Vec2Processor)  # untyped
    extractor, tokenizer, whole = parts
    processor = whole(extractor(do_normalize=True), tokenizer(str(folder / "vocab.json")))
    processor.save_pretrained(folder)
    return folder
