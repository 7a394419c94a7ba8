"""`optimizer.base_width` keeps the best learning rate where it is over four times the width (docs/results/mup.md)."""

import jax
import numpy as np
import pytest

from training.run import Run

# around the best of each, in factors of two
NARROW, WIDE, WIDE_ALONE = (8e-3, 1.6e-2, 3.2e-2), (8e-3, 1.6e-2, 3.2e-2, 6.4e-2), (2e-3, 4e-3, 8e-3, 1.6e-2)


def best(width, base_width, rates):
  """The rate at the lowest point of a parabola through the best of some rates and its neighbours."""
  arg = f"model=mamba,width={width},base_width={base_width}"
  runs = [Run.from_config(f"configs/mup.py:{arg},lr={lr}", devices=jax.devices()[:1]) for lr in rates]
  losses = [run.evaluate()["eval/validation/loss"] for run in runs if run.train() == "done"]
  middle = min(max(int(np.argmin(losses)), 1), len(rates) - 2)
  a, b, _ = np.polyfit(np.log2(rates[middle - 1 : middle + 2]), losses[middle - 1 : middle + 2], 2)
  assert a > 0
  return 2 ** (-b / (2 * a))


@pytest.mark.slow
def test_the_best_rate_stays_over_four_times_the_width_and_falls_without():
  narrow = best(32, 0, NARROW)
  assert 1 / 1.5 < best(128, 32, WIDE) / narrow < 1.5
  assert best(128, 0, WIDE_ALONE) < 0.6 * narrow
