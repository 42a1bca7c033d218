"""Records -> batches through Grain: ordered by the curriculum, read ahead, resumable to the example."""

import grain
import jax

from sari_jax.data.curriculum import order
from sari_jax.data.processor import Batch, Example, Processor, Shapes
from sari_jax.data.records import Record
from sari_jax.data.styles import Style


def batches(
    records: list[Record],
    processor: Processor,
    style: Style,
    *,
    batch_size: int,
    shapes: Shapes,
    curriculum: str = "random",
    answers: bool = False,
    seed: int = 0,
    read_ahead: int = 4,
) -> grain.DatasetIterator:
    """An endless iterator of `Batch`, whose state Orbax stores beside the model.

    `random` shuffles anew each epoch; the other orders are walked again in the same sequence. Every process
    takes its own part of each global batch.

    Args:
        batch_size: prompts per step over all processes.
    """
    shuffled = curriculum == "random"
    numbers = range(len(records)) if shuffled else order(records, curriculum, seed)
    numbered = grain.MapDataset.source(list(numbers)).seed(seed)
    if shuffled:
        numbered = numbered.shuffle()
    numbered = numbered.repeat()[jax.process_index() :: jax.process_count()]

    def read(number: int) -> Example:
        return processor.question(records[number], style, number=number, answer=answers)

    def collate(examples: list[Example]) -> Batch:
        return processor.collate(examples, shapes)

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=read_ahead * batch_size)
    dataset = numbered.map(read).to_iter_dataset(ahead)
    return iter(
        dataset.batch(batch_size // jax.process_count(), drop_remainder=True, batch_fn=collate)
    )
