"""The benchmark's work done by transformers and PyTorch as public trainers write it, in a process of its own.

`repeated`: prompt and sound G times in `generate`, reference and update. `once`: the sound encoded once per group, the
prompt's embeddings repeated. SFT's examples are padded to the longest of all, or, as `parts`, to the longest of their
part, the gradients being added up. SDPA attention, AdamW, float32.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

from sari_jax.scale.serve import confine, serve
from sari_jax.scale.work import AUDIO_ID, RATE, read


def phases(directory: Path, tower: str, form: str) -> dict[str, Callable[[], object]]:
    work, batch = read(directory)
    torch.set_num_threads(work.threads)
    policy, kept_model = (
        Qwen2AudioForConditionalGeneration.from_pretrained(
            directory / "model", attn_implementation="sdpa", dtype=torch.float32
        )
        for _ in range(2)
    )
    policy.train()
    kept_model.eval().requires_grad_(False)
    policy.requires_grad_(True)
    policy.model.audio_tower.requires_grad_(tower == "trained")
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, weight_decay=0.0)
    extract = WhisperFeatureExtractor(feature_size=work.mel_bins)
    group = work.num_completions
    tokens = torch.tensor(batch["tokens"], dtype=torch.long)[None]
    completions = torch.tensor(batch["completions"], dtype=torch.long)
    advantages = torch.tensor(batch["advantages"])

    def hear(waveforms: list) -> dict[str, torch.Tensor]:
        sound = extract(
            waveforms, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt"
        )
        return {
            "input_features": sound.input_features,
            "feature_attention_mask": sound.attention_mask,
        }

    def embed(model, ids: torch.Tensor, sound: dict[str, torch.Tensor]) -> torch.Tensor:
        """Embeddings of prompts with their sound in place, [rows, P, E]."""
        inside = model.model
        frames = (int(sound["feature_attention_mask"].sum()) + 1) // 2
        size = sound["input_features"].shape[-1] // 2
        silence = torch.where(torch.arange(size) < frames, 0.0, -torch.inf).expand(1, 1, size, size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and tower == "trained"):
            heard = inside.audio_tower(
                sound["input_features"], attention_mask=None if frames == size else silence
            ).last_hidden_state
        heard = inside.multi_modal_projector(heard)
        words = inside.get_input_embeddings()(ids)
        return words.masked_scatter((ids == AUDIO_ID)[..., None], heard.flatten(0, 1))

    def sample() -> torch.Tensor:
        policy.eval()
        sound = hear([batch["waveform"]])
        with torch.no_grad():
            if form == "once":
                given = {"inputs_embeds": embed(policy, tokens, sound).expand(group, -1, -1)}
                mask = torch.ones(group, tokens.shape[1], dtype=torch.long)
            else:
                given = {name: x.repeat_interleave(group, 0) for name, x in sound.items()}
                given["input_ids"] = tokens.expand(group, -1)
                mask = torch.ones_like(given["input_ids"])
            made = policy.generate(
                **given,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=work.new_tokens,
                min_new_tokens=work.new_tokens,
                pad_token_id=0,
                use_cache=True,
            )
        assert made.shape[-1] in (work.new_tokens, tokens.shape[1] + work.new_tokens)
        policy.train()
        return made

    def logprobs(model) -> torch.Tensor:
        sound = hear([batch["waveform"]])
        if form == "once":
            prompt = embed(model, tokens, sound).expand(group, -1, -1)
            answer = model.model.get_input_embeddings()(completions)
            logits = model(inputs_embeds=torch.cat([prompt, answer], 1), use_cache=False).logits
        else:
            ids = torch.cat([tokens.expand(group, -1), completions], 1)
            sound = {name: x.repeat_interleave(group, 0) for name, x in sound.items()}
            mask = torch.ones_like(ids)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **sound).logits
        logits = logits[:, -work.new_tokens - 1 : -1]
        return logits.log_softmax(-1).gather(-1, completions[..., None])[..., 0]

    def reference() -> torch.Tensor:
        with torch.no_grad():
            return logprobs(kept_model)

    def descend(loss: torch.Tensor) -> dict[str, torch.Tensor]:
        """A step down the gradient there is; it belongs to `loss`."""
        norm = torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return {"loss": loss.detach(), "gradient_norm": norm}

    def update(kept: torch.Tensor) -> dict[str, torch.Tensor]:
        optimizer.zero_grad()
        found = logprobs(policy)
        ratio = torch.exp(found - found.detach())
        gain = torch.minimum(
            ratio * advantages[:, None], ratio.clamp(0.8, 1.2) * advantages[:, None]
        )
        kl = torch.exp(kept - found) - (kept - found) - 1
        loss = -(gain - 0.04 * kl).mean(-1).mean()
        loss.backward()
        return descend(loss)

    def sft() -> dict[str, torch.Tensor]:
        optimizer.zero_grad()
        order = np.argsort(batch["sft_lengths"], kind="stable")
        parts = np.split(order, work.sft_parts if form == "parts" else 1)
        total = torch.zeros(())
        for rows in parts:
            loss = examples_loss(rows.tolist()) / int(batch["sft_answer_lengths"].sum())
            loss.backward()
            total += loss.detach()
        return descend(total)

    def examples_loss(rows: list[int]) -> torch.Tensor:
        """Summed over the answers' tokens."""
        lengths, answer_lengths = batch["sft_lengths"], batch["sft_answer_lengths"]
        whole = [
            torch.cat(
                [
                    torch.tensor(batch["sft_tokens"][i, : lengths[i]]),
                    torch.tensor(batch["sft_answers"][i, : answer_lengths[i]]),
                ]
            ).long()
            for i in rows
        ]
        ids = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)
        places = torch.arange(ids.shape[1])
        ends = torch.tensor([len(row) for row in whole])[:, None]
        mask = (places < ends).long()
        starts = torch.tensor(lengths[rows]).long()[:, None]
        labels = torch.where((places >= starts) & (places < ends), ids, -100)
        sound = hear([batch["sft_waveforms"][i, : batch["sft_samples"][i]] for i in rows])
        logits = policy(input_ids=ids, attention_mask=mask, use_cache=False, **sound).logits
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1),
            labels[:, 1:].flatten(),
            ignore_index=-100,
            reduction="sum",
        )

    kept = reference()
    return {
        "rollout": sample,
        "reference": reference,
        "update": lambda: update(kept),
        "grpo_step": lambda: (sample(), update(reference())),
        "sft_step": sft,
    }


if __name__ == "__main__":
    confine(read(Path(sys.argv[1]))[0].threads)
    serve(phases(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
