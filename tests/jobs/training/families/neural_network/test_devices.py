from __future__ import annotations

import pytest
import tensorflow as tf

from jobs.training.families.neural_network.devices import take_gpu


@pytest.mark.parametrize(
    ("local_rank", "own"),
    [(0, "GPU:0"), (1, "GPU:1"), (2, "GPU:0")],
)
def test_each_rank_of_a_host_sees_a_gpu_of_its_own_and_takes_memory_as_it_needs_it(
    local_rank: int, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[object] = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [f"{kind}:0", f"{kind}:1"])
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda *given: told.append(given))
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda *given: told.append(given)
    )
    take_gpu(local_rank)
    assert told == [(own, "GPU"), (own, True)]


def test_without_a_gpu_nothing_is_done() -> None:
    before = tf.config.get_visible_devices()
    take_gpu(1)
    assert tf.config.get_visible_devices() == before
