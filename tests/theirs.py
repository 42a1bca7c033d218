"""The tiny models and prompts in transformers: needs PyTorch. A test asks for the fixture `theirs`, or for `recorded`.

In float64 as far as transformers lets it, so that processors with other instructions find the same to the last digit.
"""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers
from tiny import SECOND, Question, Sizes, Tiny, flatten, names_of
from transformers import PreTrainedModel, WhisperFeatureExtractor

from sari_jax.hf.families import FAMILIES
from sari_jax.hf.names import Names, tensor_rules
from sari_jax.models.config import AudioLMConfig


def read(directory: Path, family: str, dtype: torch.dtype | str) -> PreTrainedModel:
    """A directory as transformers reads it: with nothing missing, and nothing too many but the parts that speak."""
    reference = getattr(transformers, FAMILIES[family].reference)
    model, told = reference.from_pretrained(directory, dtype=dtype, output_loading_info=True)
    unexpected = [n for n in told["unexpected_keys"] if not n.startswith(("talker", "token2wav"))]
    assert not (unexpected or told["missing_keys"] or told["mismatched_keys"]), told
    return model.eval()


# The least that transformers makes of the parts of Omni that speak.
TALKER = dict(
    vocab_size=64,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=128,
    rope_parameters=dict(rope_type="default", rope_theta=1e4, mrope_section=[1, 1, 2]),
)
TOKEN2WAV = dict(
    dit_config=dict(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        head_dim=8,
        ff_mult=1,
        emb_dim=8,
        num_embeds=10,
        mel_dim=8,
        enc_emb_dim=4,
        enc_dim=8,
        enc_channels=[8, 8, 8, 8, 24],
        enc_attention_channels=4,
        enc_se_channels=4,
    ),
    bigvgan_config=dict(
        mel_dim=8,
        upsample_initial_channel=8,
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3, 5]],
        upsample_rates=[2],
        upsample_kernel_sizes=[4],
    ),
)


def whole_omni(model: Tiny) -> PreTrainedModel:
    """All of Omni as transformers has it, around a tiny model's thinker."""
    thinker = read(model.directory, model.sizes.family, "auto")
    config = transformers.Qwen2_5OmniConfig(
        thinker_config=thinker.config.to_dict(),
        talker_config=TALKER | {"embedding_size": thinker.config.text_config.hidden_size},
        token2wav_config=TOKEN2WAV,
    )
    network = transformers.Qwen2_5OmniForConditionalGeneration(config)
    network.thinker.load_state_dict(thinker.state_dict())
    return network.eval()


@functools.cache
def opened(directory: Path, sizes: Sizes) -> PreTrainedModel:
    """A tiny model's directory, to compute with; read only."""
    model = read(directory, sizes.family, torch.float64)
    if sizes.tied:  # which transformers leaves undone for Qwen2-Audio, whatever config.json says
        model.lm_head.weight = model.get_input_embeddings().weight
    return model.requires_grad_(True)  # positions too, which transformers freezes


def of(model: Tiny) -> PreTrainedModel:
    return opened(model.directory, model.sizes)


def adapted(model: Tiny) -> PreTrainedModel:
    """A tiny model as peft puts the same adapters on it."""
    import peft

    adapter = model.config.adapter
    factors = adapter_names(model)
    modules = sorted({name.rpartition(".lora_")[0] for name, _, _ in factors})
    settings = peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        use_rslora=adapter.rslora,
        lora_dropout=adapter.dropout,
        target_modules=[name.removeprefix("base_model.model.") for name in modules],
    )
    base = read(model.directory, model.sizes.family, torch.float64)
    if model.sizes.tied:
        base.lm_head.weight = base.get_input_embeddings().weight
    network = peft.get_peft_model(base, settings, autocast_adapter_dtype=False).eval()
    parameters, flat = dict(network.named_parameters()), flatten(model.params)
    assert {n for n, p in parameters.items() if p.requires_grad} == {n for n, _, _ in factors}
    for name, path, layer in factors:
        ours = flat[path] if layer is None else flat[path][layer]
        parameters[name].data = torch.tensor(ours.T, dtype=torch.float64)
    return network


def adapter_names(model: Tiny) -> list[tuple[str, str, int | None]]:
    """Every factor: peft's name, our path, and the layer if it has layers."""
    names, found = names_of(model.sizes), []
    flat = flatten(model.params)
    for rule in tensor_rules(model.config, names):
        for letter in "AB":
            path = "/".join((*rule.path[:-1], f"lora_{letter.lower()}"))
            if rule.path[-1] == "kernel" and path in flat:
                for layer, name in enumerate(rule.names):
                    module = module_name(name, names).removesuffix(".weight")
                    theirs = f"base_model.model.{module}.lora_{letter}.default.weight"
                    found.append((theirs, path, layer if rule.layers else None))
    return found


def adapter_gradients(
    model: Tiny, network: PreTrainedModel, loss: torch.Tensor
) -> dict[str, np.ndarray]:
    """d loss / d A and d B by our paths."""
    parameters, factors = dict(network.named_parameters()), adapter_names(model)
    gradients = torch.autograd.grad(loss, [parameters[name] for name, _, _ in factors])
    found = {}
    for (_, path, layer), gradient in zip(factors, gradients, strict=True):
        array = gradient.numpy().T
        found.setdefault(path, []).append(array) if layer is not None else found.update(
            {path: array}
        )
    return {path: np.stack(a) if isinstance(a, list) else a for path, a in found.items()}


def weights_in(directory: Path, family: str) -> dict[str, np.ndarray]:
    """What transformers reads from a directory, under its module names."""
    model = read(directory, family, "auto")
    return {name: p.detach().float().numpy() for name, p in model.named_parameters()}


@functools.cache
def extractor(mels: int, seconds: int) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=mels, chunk_length=seconds)


def inputs(
    sizes: Sizes, questions: Sequence[Question], answers: Sequence[np.ndarray] | None = None
) -> dict[str, torch.Tensor]:
    """transformers' inputs, clips padded to 30 or 60 s, rows on the right; with answers, labels for them alone."""
    answers = [np.zeros(0, np.int64)] * len(questions) if answers is None else answers
    size = max(len(q.tokens) + len(answer) for q, answer in zip(questions, answers, strict=True))
    ids, mask = (
        torch.zeros(len(questions), size, dtype=torch.long),
        torch.zeros(len(questions), size, dtype=torch.long),
    )
    labels = torch.full_like(ids, -100)
    for row, (q, answer) in enumerate(zip(questions, answers, strict=True)):
        start, end = len(q.tokens), len(q.tokens) + len(answer)
        ids[row, :end] = torch.tensor(np.concatenate([q.tokens, answer]).astype(np.int64))
        mask[row, :end] = 1
        labels[row, start:end] = ids[row, start:end]
    longest = max((len(w) for q in questions for w in q.waveforms), default=0)
    seconds = 60 if longest > 30 * SECOND else 30  # what follows a clip changes nothing
    sound = extractor(sizes.mels, seconds)(
        [waveform for q in questions for waveform in q.waveforms],
        sampling_rate=16_000,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return dict(
        input_ids=ids,
        attention_mask=mask,
        input_features=sound.input_features,
        feature_attention_mask=sound.attention_mask,
        labels=labels,
    )


def logits(
    model: Tiny, questions: Sequence[Question], network: PreTrainedModel | None = None
) -> np.ndarray:
    """[tokens of all prompts, V]."""
    with torch.no_grad():
        found = (network or of(model))(**inputs(model.sizes, questions)).logits.numpy()
    rows = zip(found, questions, strict=True)
    return np.concatenate([row[: len(question.tokens)] for row, question in rows])


def greedy(model: Tiny, questions: Sequence[Question], count: int) -> np.ndarray:
    """[B, count] tokens, each prompt on its own."""
    rows = []
    for question in questions:
        given = inputs(model.sizes, [question])
        given.pop("labels")
        made = of(model).generate(
            **given, max_new_tokens=count, do_sample=False, num_beams=1, pad_token_id=0
        )
        rows.append(made[0, len(question.tokens) :].numpy())
    return np.stack(rows)


def sft_loss(
    model: Tiny, questions: Sequence[Question], answers: Sequence[np.ndarray]
) -> torch.Tensor:
    return of(model)(**inputs(model.sizes, questions, answers)).loss


def completion_scores(
    model: PreTrainedModel,
    sizes: Sizes,
    questions: Sequence[Question],
    answers: Sequence[np.ndarray],
    temperature: float,
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Every completion after its own copy of prompt and sound: log-probabilities [T, V] and those chosen [T]."""
    given = inputs(sizes, questions, answers)
    labels = given.pop("labels")
    found = model(**given).logits / temperature
    rows = []
    for row in range(len(questions)):
        places = torch.nonzero(labels[row] != -100)[:, 0]
        scores = found[row, places - 1].log_softmax(-1)
        rows.append((scores, scores.gather(-1, labels[row, places][:, None])[:, 0]))
    return rows


def gradients(model: Tiny, loss: torch.Tensor) -> dict[str, np.ndarray]:
    """d loss by our paths; a tied embedding's is the sum of both its uses."""
    named = {n: p for n, p in of(model).named_parameters() if not unused(n)}
    found = torch.autograd.grad(loss, list(named.values()))
    arrays = {name: g.numpy() for name, g in zip(named, found, strict=True)}
    return by_our_paths(arrays, model.config, names_of(model.sizes))


def by_our_paths(
    tensors: dict[str, np.ndarray], config: AudioLMConfig, names: Names
) -> dict[str, np.ndarray]:
    """Tensors under transformers' module names (weights, gradients) -> flat by our paths."""
    flat = {}
    for rule in tensor_rules(config, names):
        parts = [rule.to_ours(tensors[module_name(name, names)]) for name in rule.names]
        flat["/".join(rule.path)] = np.stack(parts) if rule.layers else parts[0]
    return flat


def module_name(hub_name: str, names: Names) -> str:
    """The hub's names are those of an older transformers; `from_pretrained` and `save_pretrained` translate."""
    if hub_name == names.unembedding:
        return "lm_head.weight"
    if hub_name.startswith(names.decoder + "."):
        return "model.language_model" + hub_name.removeprefix(names.decoder)
    return "model." + hub_name.removeprefix("thinker.").removeprefix("model.")


def unused(module_name: str) -> bool:
    """What Omni's thinker has and we do not: eyes, and an embedding that its tower never looks at."""
    return ".visual." in module_name or "audio_bos_eos_token" in module_name


def objective_loss(
    name: str,
    new: Sequence[torch.Tensor],
    old: Sequence[torch.Tensor],
    reference: Sequence[torch.Tensor],
    sampler: Sequence[torch.Tensor],
    rewards: torch.Tensor,
    longest: int,
    kl: str,
    beta: float,
) -> torch.Tensor:
    """GRPO and its relatives as their papers write them, completion by completion.

    Args:
        new, old, reference, sampler: of each completion, group by group, its tokens' log-probabilities [T].
        rewards: [B, G].
        longest: T that a completion may have.
        kl: "", or k1 (in the reward), k2, k3 (in the loss).
    """
    group = rewards.shape[1]
    if kl == "k1":
        penalties = [(o - r).sum() for o, r in zip(old, reference, strict=True)]
        rewards = rewards - beta * torch.stack(penalties).reshape(rewards.shape)
    totals = []
    for place, now in enumerate(new):
        of_group, reward = rewards[place // group], rewards.flatten()[place]
        if name == "rloo":
            advantage = reward - (of_group.sum() - reward) / (group - 1)
        elif name == "dr_grpo":
            advantage = reward - of_group.mean()
        else:
            advantage = (reward - of_group.mean()) / (of_group.std() + 1e-4)
        change = now - old[place]
        if name == "gspo":
            ratio = torch.exp(change.sum() / len(now)).expand(len(now))
            clipped = ratio.clamp(1 - 3e-4, 1 + 4e-4)
        else:
            ratio = torch.exp(change)
            most = {"dapo": 1.28, "rloo": torch.inf}.get(name, 1.2)
            clipped = ratio.clamp(-torch.inf if name == "rloo" else 0.8, most)
        gains = torch.minimum(ratio * advantage, clipped * advantage)
        gains = gains * torch.exp(old[place] - sampler[place]).clamp(max=2.0)
        if kl in ("k2", "k3"):
            distance = now - reference[place]
            k3 = torch.exp(-distance) + distance - 1
            gains = gains - beta * (0.5 * distance**2 if kl == "k2" else k3)
        totals.append(gains)
    if name == "dapo":
        return -torch.cat(totals).mean()
    if name == "rloo":
        return -torch.stack([gains.sum() for gains in totals]).mean()
    if name == "dr_grpo":
        return -torch.stack([gains.sum() / longest for gains in totals]).mean()
    return -torch.stack([gains.mean() for gains in totals]).mean()
