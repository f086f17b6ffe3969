"""Many processes: how they find one another, agree, and share out the batches."""

import jax
import numpy as np


def everywhere(true: bool) -> bool:
    """Whether it is true in all processes; every one of them has to ask."""
    if jax.process_count() == 1:
        return true
    from jax.experimental.multihost_utils import process_allgather

    return bool(np.all(process_allgather(np.int32(true))))
