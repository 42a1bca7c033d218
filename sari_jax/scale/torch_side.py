"""The benchmark's work done by transformers and PyTorch as public trainers write it; see `bench`.

With the form `repeated`, prompt and audio enter `generate`, reference and update G times. With `once`, the audio is
encoded once per group and the prompt's embeddings are repeated. The examples of SFT are padded to the longest of all;
with `parts`, to the longest of their micro-batch, and the gradients are added up. All forms use SDPA attention, AdamW
and float32.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2AudioForConditionalGeneration, WhisperFeatureExtractor

from sari_jax.scale.serve import confine, serve
from sari_jax.scale.work import AUDIO_ID, RATE, read

Metrics = dict[str, torch.Tensor]


def phases(directory: Path, tower: str, form: str) -> dict[str, Callable[[], object]]:
    """Returns each phase as a function; an update starts from the parameters that the one before it left."""
    return TorchSide(directory, tower, form).phases()


class TorchSide:
    """The model, its optimizer and the batch, with a method for each phase.

    Args:
        directory: the work as `work.make` writes it.
        tower: trained or frozen.
        form: repeated, once, padded or parts; see the module's docstring.
    """

    def __init__(self, directory: Path, tower: str, form: str):
        self.work, self.batch = read(directory)
        self.form = form
        self.tower_learns = tower == "trained"
        torch.set_num_threads(self.work.threads)
        self.policy = _load(directory / "model")
        self.reference_model = _load(directory / "model")
        self.policy.train()
        self.reference_model.eval().requires_grad_(False)
        self.policy.requires_grad_(True)
        self.policy.model.audio_tower.requires_grad_(self.tower_learns)
        self.trained = [p for p in self.policy.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(self.trained, lr=1e-6, weight_decay=0.0)
        self.extract = WhisperFeatureExtractor(feature_size=self.work.mel_bins)
        self.tokens = torch.tensor(self.batch["tokens"], dtype=torch.long)[None]
        self.completions = torch.tensor(self.batch["completions"], dtype=torch.long)
        self.advantages = torch.tensor(self.batch["advantages"])

    def phases(self) -> dict[str, Callable[[], object]]:
        reference_logprobs = self.reference()
        return {
            "rollout": self.rollout,
            "reference": self.reference,
            "update": lambda: self.update(reference_logprobs),
            "grpo_step": self.grpo_step,
            "sft_step": self.sft_step,
        }

    def rollout(self) -> torch.Tensor:
        """Samples G completions of T tokens."""
        self.policy.eval()
        with torch.no_grad():
            inputs, mask = self._rollout_inputs()
            ids = self.policy.generate(
                **inputs,
                attention_mask=mask,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=self.work.new_tokens,
                min_new_tokens=self.work.new_tokens,
                pad_token_id=0,
                use_cache=True,
            )
        new_tokens = self.work.new_tokens
        assert ids.shape[-1] in (new_tokens, self.tokens.shape[1] + new_tokens)
        self.policy.train()
        return ids

    def reference(self) -> torch.Tensor:
        """Returns the log-probabilities [G, T] of the completions under the reference."""
        with torch.no_grad():
            return self._logprobs(self.reference_model)

    def update(self, reference_logprobs: torch.Tensor) -> Metrics:
        """Takes one step down the gradient of GRPO's loss."""
        self.optimizer.zero_grad()
        logprobs = self._logprobs(self.policy)
        ratio = torch.exp(logprobs - logprobs.detach())
        advantages = self.advantages[:, None]
        gain = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        gap = reference_logprobs - logprobs
        kl = torch.exp(gap) - gap - 1
        loss = -(gain - 0.04 * kl).mean(-1).mean()
        loss.backward()
        return self._descend(loss)

    def grpo_step(self) -> object:
        """Samples, scores the batch's completions under the reference, and updates."""
        return self.rollout(), self.update(self.reference())

    def sft_step(self) -> Metrics:
        """Takes one step down the gradient of the answers' mean cross-entropy."""
        self.optimizer.zero_grad()
        order = np.argsort(self.batch["sft_lengths"], kind="stable")
        parts = np.split(order, self.work.sft_parts if self.form == "parts" else 1)
        num_tokens = int(self.batch["sft_answer_lengths"].sum())
        total = torch.zeros(())
        for rows in parts:
            loss = self._sft_loss(rows.tolist()) / num_tokens
            loss.backward()
            total += loss.detach()
        return self._descend(total)

    def _features(self, waveforms: list[np.ndarray]) -> dict[str, torch.Tensor]:
        """Computes the log-mel spectrograms [rows, mel bins, frames] of clips, and their masks."""
        features = self.extract(
            waveforms, sampling_rate=RATE, return_attention_mask=True, return_tensors="pt"
        )
        return {
            "input_features": features.input_features,
            "feature_attention_mask": features.attention_mask,
        }

    def _embed(self, model: Any, features: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the prompt's embeddings [1, P, E], with the encoded audio in its place."""
        inside = model.model
        frames = (int(features["feature_attention_mask"].sum()) + 1) // 2
        size = features["input_features"].shape[-1] // 2
        silence = torch.where(torch.arange(size) < frames, 0.0, -torch.inf).expand(1, 1, size, size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.tower_learns):
            audio = inside.audio_tower(
                features["input_features"], attention_mask=None if frames == size else silence
            ).last_hidden_state
        audio = inside.multi_modal_projector(audio)
        words = inside.get_input_embeddings()(self.tokens)
        return words.masked_scatter((self.tokens == AUDIO_ID)[..., None], audio.flatten(0, 1))

    def _repeated(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Repeats the audio's features G times."""
        group = self.work.num_completions
        return {name: x.repeat_interleave(group, 0) for name, x in features.items()}

    def _rollout_inputs(self) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Returns the inputs of `generate` for G completions, and their attention mask [G, P]."""
        features = self._features([self.batch["waveform"]])
        group = self.work.num_completions
        if self.form == "once":
            embeddings = self._embed(self.policy, features).expand(group, -1, -1)
            mask = torch.ones(group, self.tokens.shape[1], dtype=torch.long)
            return {"inputs_embeds": embeddings}, mask
        ids = self.tokens.expand(group, -1)
        return {**self._repeated(features), "input_ids": ids}, torch.ones_like(ids)

    def _logprobs(self, model: Any) -> torch.Tensor:
        """Returns the log-probabilities [G, T] of the batch's completions under a model."""
        features = self._features([self.batch["waveform"]])
        group = self.work.num_completions
        if self.form == "once":
            prompt = self._embed(model, features).expand(group, -1, -1)
            answer = model.model.get_input_embeddings()(self.completions)
            logits = model(inputs_embeds=torch.cat([prompt, answer], 1), use_cache=False).logits
        else:
            ids = torch.cat([self.tokens.expand(group, -1), self.completions], 1)
            mask = torch.ones_like(ids)
            repeated = self._repeated(features)
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False, **repeated).logits
        logits = logits[:, -self.work.new_tokens - 1 : -1]
        return logits.log_softmax(-1).gather(-1, self.completions[..., None])[..., 0]

    def _sft_loss(self, rows: list[int]) -> torch.Tensor:
        """Returns the cross-entropy of some examples, summed over the tokens of their answers."""
        batch = self.batch
        lengths = batch["sft_lengths"]
        examples = [self._example(row) for row in rows]
        ids = torch.nn.utils.rnn.pad_sequence(examples, batch_first=True)
        places = torch.arange(ids.shape[1])
        ends = torch.tensor([len(example) for example in examples])[:, None]
        mask = (places < ends).long()
        starts = torch.tensor(lengths[rows]).long()[:, None]
        labels = torch.where((places >= starts) & (places < ends), ids, -100)
        clips = [batch["sft_waveforms"][i, : batch["sft_samples"][i]] for i in rows]
        features = self._features(clips)
        logits = self.policy(input_ids=ids, attention_mask=mask, use_cache=False, **features).logits
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1),
            labels[:, 1:].flatten(),
            ignore_index=-100,
            reduction="sum",
        )

    def _example(self, row: int) -> torch.Tensor:
        """Returns the ids of one example: its prompt and its answer without padding."""
        batch = self.batch
        prompt = torch.tensor(batch["sft_tokens"][row, : batch["sft_lengths"][row]])
        answer = torch.tensor(batch["sft_answers"][row, : batch["sft_answer_lengths"][row]])
        return torch.cat([prompt, answer]).long()

    def _descend(self, loss: torch.Tensor) -> Metrics:
        """Steps down the gradients that are accumulated, those of `loss`."""
        norm = torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        return {"loss": loss.detach(), "gradient_norm": norm}


def _load(model: Path) -> Any:
    return Qwen2AudioForConditionalGeneration.from_pretrained(
        model, attn_implementation="sdpa", dtype=torch.float32
    )


if __name__ == "__main__":
    confine(read(Path(sys.argv[1]))[0].threads)
    serve(phases(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
