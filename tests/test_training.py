"""What trained detectors share."""

import pytest
import torch

from adbench_tgan import mean_losses


def test_a_mean_of_many_short_floats_is_their_mean():
    steps = [{"loss": torch.tensor(1.0703125, dtype=torch.bfloat16)}] * 2000
    assert mean_losses(steps) == {"loss": pytest.approx(1.0703125)}


def test_a_loss_that_the_next_step_overwrites_counts_as_it_was():
    kept = torch.zeros(())

    def steps():
        for number in range(4):
            yield {"loss": kept.fill_(number)}

    assert mean_losses(steps()) == {"loss": 1.5}
