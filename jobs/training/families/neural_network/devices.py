"""The GPU of a rank: each takes one for itself, and of its memory what it needs."""

from __future__ import annotations

import tensorflow as tf


def take_gpu(local_rank: int) -> None:
    """See one GPU of this host alone; nothing where there is none.

    Call it before TensorFlow does anything. Ranks share GPUs where there are fewer of them: then
    each takes memory as it needs it.

    Args:
        local_rank: Number of the rank among those of its host.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return
    own = gpus[local_rank % len(gpus)]
    tf.config.set_visible_devices(own, "GPU")
    # Else the first process on a GPU takes all of its memory.
    tf.config.experimental.set_memory_growth(own, True)
