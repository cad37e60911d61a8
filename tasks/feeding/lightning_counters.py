"""What the data module reads of Lightning that Lightning's documentation does not promise."""

from typing import Any

import pytorch_lightning as pl


def num_batches_processed(trainer: pl.Trainer) -> int:
    """Count the training batches that a step was taken on, not those only prefetched."""
    # Annotated as its base class, which does not count what was processed.
    total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return total.processed
