"""Tokenizers with Qwen2-Audio's special tokens: nano's own small BPE, and SmolLM2's with audio tokens added.

They are built with `tokenizers` and written as the files of a Hugging Face model directory.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

CHAT = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
AUDIO = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def nano_tokenizer(texts: Iterable[str], tags: Sequence[str], limit: int) -> Tokenizer:
    """Trains a byte-level BPE in Qwen2's form on `texts`, with at most `limit` tokens before the special ones.

    The same texts give the same tokenizer. Each of the `tags` becomes one ordinary token: in several tokens they would
    take most of so small a model's completion.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=limit, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(_pieces(texts, tags), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in CHAT + AUDIO]
    )
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return tokenizer


def _pieces(texts: Iterable[str], tags: Sequence[str]) -> Iterable[str]:
    """Yields the texts between tags, once as they are and once with each word on its own line.

    A word after a space and a word at the beginning of a line, as in choices, are different tokens.
    """
    between = re.compile("|".join(map(re.escape, tags)) or r"\Z")
    for text in texts:
        for piece in between.split(text):
            yield piece
            yield piece.replace(" ", "\n")


def smollm2_tokenizer(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], special: Sequence[str]
) -> Tokenizer:
    """Builds SmolLM2's BPE; its `special` tokens keep their ids, and the audio tokens come last."""
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in (*special, *AUDIO)]
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, out: Path, *, tokenizer_class: str) -> None:
    """Writes tokenizer.json, tokenizer_config.json, vocab.json and merges.txt.

    Args:
        tokenizer_class: the class with which transformers opens it. Qwen2Tokenizer brings Qwen2's way of splitting text
            into words; PreTrainedTokenizerFast uses that of tokenizer.json.
    """
    tokenizer.save(str(out / "tokenizer.json"))
    tokenizer.model.save(str(out))
    added = {
        str(i): {
            "content": token.content,
            "lstrip": token.lstrip,
            "normalized": token.normalized,
            "rstrip": token.rstrip,
            "single_word": token.single_word,
            "special": token.special,
        }
        for i, token in sorted(tokenizer.get_added_tokens_decoder().items())
    }
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": [
            token["content"] for token in added.values() if token["special"]
        ],
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 8192,
        "pad_token": "<|endoftext|>",
        "processor_class": "Qwen2AudioProcessor",
        "tokenizer_class": tokenizer_class,
        "unk_token": None,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
