"""Tokenizers with Qwen2-Audio's special tokens: nano's own small BPE, and SmolLM2's with sound added."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from sari_jax.data.styles import STYLES, Style

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")


def train_bpe(texts: Iterable[str], vocabulary: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A byte-level BPE in Qwen's form: (token -> id, merges in order)."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    model = json.loads(bpe.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def make_tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], *, whole_tags: bool):
    """A Qwen2 tokenizer over a BPE, the special tokens after it.

    Args:
        whole_tags: also make each tag of the answer styles one ordinary token, for a vocabulary so small that tags
            would fill a completion.
    """
    from transformers import Qwen2TokenizerFast

    tokenizer = Qwen2TokenizerFast(
        vocab=vocabulary,
        merges=merges,
        unk_token=None,
        bos_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    if whole_tags:
        tags = dict.fromkeys(tag for style in STYLES.values() for tag in _tags(style))
        tokenizer.add_tokens([mark for tag in tags for mark in (f"<{tag}>", f"</{tag}>")])
    return tokenizer


def _tags(style: Style) -> list[str]:
    think = [style.think_tag] if style.think_tag else []
    return [*think, *(tag for _, tag in style.section_tags), style.answer_tag]
