"""Records -> batches through Grain: ordered by the curriculum, read ahead, resumable to the example."""

from collections.abc import Sequence

import grain

from sari_jax.data.curriculum import order
from sari_jax.data.processor import Batch, Processor, Shapes
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
    rows: Sequence[int] | None = None,
) -> grain.DatasetIterator:
    """An endless iterator of `Batch`, whose state Orbax stores beside the model.

    `random` shuffles anew each epoch; the other orders are walked again in the same sequence. A global batch holds
    the same examples in the same order however many processes take part, and the state is the number of batches:
    the same in every process, and good for another number of them.

    Args:
        batch_size: prompts per step over all processes.
        read_ahead: batches.
        rows: those of each global batch that are this process's; all unless given.
    """
    shuffled = curriculum == "random"
    numbers = range(len(records)) if shuffled else order(records, curriculum, seed)
    numbered = grain.MapDataset.source(list(numbers)).seed(seed)
    if shuffled:
        numbered = numbered.shuffle()
    mine = list(range(batch_size) if rows is None else rows)
    global_batches = numbered.repeat().batch(batch_size, drop_remainder=True, batch_fn=list)

    def read(numbers: list[int]) -> Batch:
        examples = [
            processor.question(records[number], style, number=number, answer=answers)
            for number in (numbers[row] for row in mine)
        ]
        return processor.collate(examples, shapes)

    ahead = grain.ReadOptions(num_threads=2, prefetch_buffer_size=read_ahead)
    return iter(global_batches.map(read).to_iter_dataset(ahead))
