"""A model in memory that answers questions: the part that scoring, evaluation and `ask` share."""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np

from sari_jax.data.processor import Example, Processor, Shapes
from sari_jax.data.records import Record
from sari_jax.data.styles import Style
from sari_jax.errors import InputError
from sari_jax.generate.rollout import rollout
from sari_jax.generate.sampling import Sampler
from sari_jax.hf.config import read_config
from sari_jax.hf.load import load_params
from sari_jax.models.audio_lm import Params
from sari_jax.models.config import AudioLMConfig
from sari_jax.models.kernels import num_head_shards
from sari_jax.parallel.mesh import (
    DECODE_RULES,
    make_mesh,
    num_data_shards,
    put_on_mesh,
    shard_batch,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answered:
    """The G completions of one prompt.

    Attributes:
        texts: the text of each completion, without its end token.
        token_ids: the token ids of each completion, its end token included.
        logprobs: the log-probability of each token under the sampling policy; see `generate.sampling.sample`.
        done: whether each completion ended before the limit.
    """

    example: Example
    texts: list[str]
    token_ids: list[list[int]]
    logprobs: list[list[float]]
    done: list[bool]


class Engine:
    """A model directory in memory, to answer with.

    The layers are split over as many of this host's devices as their heads allow, and the prompts over the rest.

    Args:
        dtype: the dtype of activations; parameters keep the dtype of the directory.
    """

    def __init__(self, model_dir: Path | str, *, dtype: str = "float32"):
        self.config: AudioLMConfig = read_config(model_dir, dtype=dtype)
        if sys.stderr.isatty():  # loading takes a while, and nothing else is printed meanwhile
            print(f"loading {model_dir}", file=sys.stderr, flush=True)
        self.processor = Processor(model_dir, self.config)
        # This host's devices alone: with several hosts, each answers questions of its own.
        devices = jax.local_devices()
        num_shards = num_head_shards(self.config, len(devices))
        self.mesh = make_mesh(tensor=num_shards, devices=devices)
        self.params: Params = load_params(
            model_dir, self.config, mesh=self.mesh, rules=DECODE_RULES
        )

    def sampler(
        self, num_completions: int, max_tokens: int, temperature: float, **rest: float
    ) -> Sampler:
        """Returns sampling settings with this model's end tokens."""
        return Sampler(
            num_completions=num_completions,
            max_tokens=max_tokens,
            end_ids=self.processor.end_ids,
            pad_id=self.processor.pad_id,
            temperature=temperature,
            **rest,
        )

    def answer(
        self,
        examples: Sequence[Example],
        sampler: Sampler,
        shapes: Shapes,
        *,
        rows: int,
        seed: int = 0,
    ) -> Iterator[Answered]:
        """Yields the completions of each example, in order, `rows` examples at a time.

        `rows` is rounded up to a multiple of the data shards. The last batch is padded with rows that are dropped.
        """
        for start in range(0, len(examples), rows):
            yield from self._batch(examples[start : start + rows], sampler, shapes, rows, seed)

    def answer_batches(
        self,
        records: Sequence[Record],
        style: Style,
        sampler: Sampler,
        shapes: Shapes,
        *,
        rows: int,
        seed: int = 0,
        batches: Sequence[Sequence[int]],
    ) -> Iterator[list[Answered | InputError]]:
        """Yields the answers of each batch, and reads the next batch's audio while the device works.

        A record gets the same answers in any batch, as its noise comes from its index. For a record that cannot be
        asked about, its InputError stands in the place of its answers.

        Args:
            rows: the largest number of records in a batch.
            batches: the indices into `records` of each batch.
        """

        def read(batch: Sequence[int]) -> list[Example | InputError]:
            return [self._try(records[index], style, index, shapes) for index in batch]

        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = [reader.submit(read, batch) for batch in batches[:1]]
            for done in range(len(batches)):
                examples = ahead.pop().result()
                ahead += [reader.submit(read, b) for b in batches[done + 1 : done + 2]]
                whole = [example for example in examples if isinstance(example, Example)]
                answers = iter(self._batch(whole, sampler, shapes, rows, seed) if whole else ())
                yield [next(answers) if isinstance(e, Example) else e for e in examples]

    def _try(
        self, record: Record, style: Style, index: int, shapes: Shapes
    ) -> Example | InputError:
        """Returns a record's example, or why the record cannot be asked about."""
        try:
            example = self.processor.question(record, style, index=index)
            self.processor.collate([example], shapes)  # raises if it fits no shape
            return example
        except InputError as error:
            return error

    def _batch(
        self, examples: Sequence[Example], sampler: Sampler, shapes: Shapes, rows: int, seed: int
    ) -> Iterator[Answered]:
        batch = self.processor.collate(examples, shapes, rows + -rows % num_data_shards(self.mesh))
        prompts, seeds = shard_batch(self.mesh, (batch.prompts, batch.indices))
        key = put_on_mesh(self.mesh, jax.random.key(seed))
        with jax.set_mesh(self.mesh):
            completions = rollout(self.config, sampler, self.params, prompts, seeds, key)
        completions = jax.device_get(completions)
        for row, example in enumerate(examples):
            tokens = np.asarray(completions.tokens[row])
            logprobs = np.asarray(completions.logprobs[row])
            lengths = np.asarray(completions.lengths[row])
            yield Answered(
                example=example,
                texts=self.processor.texts(tokens, lengths),
                token_ids=_cut(tokens, lengths),
                logprobs=_cut(logprobs, lengths),
                done=completions.done[row].tolist(),
            )


def _cut(rows: np.ndarray, lengths: np.ndarray) -> list[list]:
    """Returns each row up to its length."""
    return [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)]
