"""A model that answers: what scoring, evaluation and `ask` share."""

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
from sari_jax.parallel.mesh import DECODE_RULES, make_mesh, num_data_shards, onto_mesh, shard_batch


@dataclasses.dataclass(frozen=True)
class Answered:
    """One prompt's G completions.

    Attributes:
        texts: without the end token.
        token_ids: of each completion, the end token included.
        done: whether each ended before the limit.
    """

    example: Example
    texts: list[str]
    token_ids: list[list[int]]
    done: list[bool]


class Engine:
    """A model directory loaded for answering: layers split over as many of this host's devices as their heads allow,
    prompts over the rest.

    Args:
        dtype: of activations; parameters keep the directory's own.
    """

    def __init__(self, model_dir: Path | str, *, dtype: str = "float32"):
        self.config: AudioLMConfig = read_config(model_dir, dtype=dtype)
        if sys.stderr.isatty():  # it takes a while, and nothing else is said meanwhile
            print(f"loading {model_dir}", file=sys.stderr, flush=True)
        self.processor = Processor(model_dir, self.config)
        # This host's alone: of several, each answers questions of its own.
        devices = jax.local_devices()
        num_shards = num_head_shards(self.config, len(devices))
        self.mesh = make_mesh(tensor=num_shards, devices=devices)
        self.params: Params = load_params(
            model_dir, self.config, mesh=self.mesh, rules=DECODE_RULES
        )

    def sampler(
        self, num_completions: int, max_tokens: int, temperature: float, **rest: float
    ) -> Sampler:
        """Sampling settings with this model's end tokens."""
        ends, pad = self.processor.end_ids, self.processor.pad_id
        return Sampler(num_completions, max_tokens, ends, pad, temperature, **rest)

    def answer(
        self,
        examples: Sequence[Example],
        sampler: Sampler,
        shapes: Shapes,
        *,
        rows: int,
        seed: int = 0,
    ) -> Iterator[Answered]:
        """Completes examples `rows` at a time, in order; the last batch is padded with rows that are dropped.

        Rows are rounded up to what the devices can share.
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
        """Of each batch of places in `records`, the answers, reading the next batch's sound while the device works.

        A record's answers are the same in whichever batch it stands, as its noise comes from its place. One that cannot
        be asked about stands there as what is wrong with it.

        Args:
            rows: of a batch, at most.
        """

        def read(batch: Sequence[int]) -> list[Example | InputError]:
            return [self._try(records[place], style, place, shapes) for place in batch]

        with ThreadPoolExecutor(max_workers=1) as reader:
            ahead = [reader.submit(read, batch) for batch in batches[:1]]
            for done in range(len(batches)):
                examples = ahead.pop().result()
                ahead += [reader.submit(read, b) for b in batches[done + 1 : done + 2]]
                whole = [example for example in examples if isinstance(example, Example)]
                answers = iter(self._batch(whole, sampler, shapes, rows, seed) if whole else ())
                yield [next(answers) if isinstance(e, Example) else e for e in examples]

    def _try(
        self, record: Record, style: Style, number: int, shapes: Shapes
    ) -> Example | InputError:
        try:
            example = self.processor.question(record, style, index=number)
            self.processor.collate([example], shapes)  # whether it fits any shape
            return example
        except InputError as error:
            return error

    def _batch(
        self, examples: Sequence[Example], sampler: Sampler, shapes: Shapes, rows: int, seed: int
    ) -> Iterator[Answered]:
        batch = self.processor.collate(examples, shapes, rows + -rows % num_data_shards(self.mesh))
        prompts, seeds = shard_batch(self.mesh, (batch.prompts, batch.indices))
        key = onto_mesh(self.mesh, jax.random.key(seed))
        with jax.set_mesh(self.mesh):
            completions = rollout(self.config, sampler, self.params, prompts, seeds, key)
        completions = jax.device_get(completions)
        for row, example in enumerate(examples):
            tokens, lengths = (
                np.asarray(completions.tokens[row]),
                np.asarray(completions.lengths[row]),
            )
            yield Answered(
                example,
                self.processor.texts(tokens, lengths),
                [ids[:length].tolist() for ids, length in zip(tokens, lengths, strict=True)],
                completions.done[row].tolist(),
            )
