"""What trained detectors share."""

from types import SimpleNamespace

import pytest
import torch

from adbench_tgan import AdbenchError, Detector, mean_losses
from adbench_tgan.training import fit


@pytest.mark.parametrize(
    ("epochs", "told"),
    [
        ([0.5], "yields something of type float"),
        (None, "returns something of"),
        ({"loss": 0.5}, "returns something of type dict"),
    ],
)
def test_epochs_that_are_no_losses_by_name_are_a_mistake_in_words(epochs, told):
    class Careless(Detector):
        def epochs(self, train):
            return epochs

        def score(self, images):
            return images

    with pytest.raises(AdbenchError, match=f"epochs {told}.*; it must yield losses by name"):
        fit(Careless(), SimpleNamespace())


def test_a_mean_of_many_short_floats_is_their_mean():
    steps = [{"loss": torch.tensor(1.0703125, dtype=torch.bfloat16)}] * 2000
    assert mean_losses(steps) == {"loss": pytest.approx(1.0703125)}


def test_a_loss_that_the_next_step_overwrites_counts_as_it_was():
    kept = torch.zeros(())

    def steps():
        for number in range(4):
            yield {"loss": kept.fill_(number)}

    assert mean_losses(steps()) == {"loss": 1.5}
