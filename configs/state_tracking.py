"""Parity and modular arithmetic, trained on up to 39 tokens and asked about up to 255 (Beck et al. 2024, App. D.2).

Layers whose state can change sign or turn (arXiv:2411.12537), or whose recurrence is not linear, can learn parity of
any length; positive decays and softmax attention cannot. Published: 20,000 steps of 256 rows, the answer alone scored:
`:score=last,batch=256,steps=20000,lr=1e-3,warmup=2000,weight_decay=0.1,save.every=1000`. Here the value so far
is scored at every token. DeltaNets have no short convolutions: with taps=4 a token's key depends on those before it,
and one with negative eigenvalues, perfect up to 39 tokens, was right at 78 % of 40 to 255 after 1,000 steps; with
taps=1 at 100 % after 100. Mamba-3 decays by softplus(.), which gets near 0 sooner than its newer default: after 300
steps it was right at 100 % of 40 to 79, with the default at 77 %. (Throw-away runs, one seed.)

  python main.py --config configs/state_tracking.py:mixer=slstm --workdir runs/parity_slstm
  python main.py --config configs/state_tracking.py:task=brackets,mixer=slstm --workdir runs/brackets
  python scripts/sweep.py --config configs/state_tracking.py --out runs/parity
  python scripts/report.py runs/parity --by mixer --metric eval/length_160_255/accuracy
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base

# the data sections of the tasks, where they differ
TASKS: dict[str, dict[str, Any]] = {
  "parity": {"name": "parity", "vocab": 3, "score": "all"},
  "arithmetic": {"name": "modular_arithmetic", "vocab": 10, "score": "all", "brackets": False, "times": True},
  "brackets": {"name": "modular_arithmetic", "vocab": 12, "score": "last", "brackets": True, "times": False},
}
SEEDS = (0, 1, 2)
MIXERS: tuple[dict[str, Any], ...] = (
  {"mixer": "slstm"},
  {"mixer": "mamba3", "m.state": 16, "m.A_activation": "softplus"},
  {"mixer": "delta_net", "m.taps": 1, "m.negative_eigenvalues": True},
  {"mixer": "gated_delta_net", "m.taps": 1, "m.head_size": 16, "m.negative_eigenvalues": True},
  {"mixer": "delta_net", "m.taps": 1},
  {"mixer": "mamba"},
  {"mixer": "retnet"},
  {"mixer": "softmax"},
)


def get_config(arg: str = "") -> ConfigDict:
  """`task`: parity, arithmetic or brackets; and sizes."""
  task, arg = base.take(arg, "task", TASKS)
  c = base.defaults()
  c.steps = 400
  c.data = ConfigDict(
    {
      "batch": 64,
      "length": 39,
      "seed": 0,
      "shortest": 2,
      "eval_sizes": ((2, 39), (40, 79), (80, 159), (160, 255)),
      "eval_rows": 512,
      **TASKS[task],
    }
  )
  c.optimizer.lr = 2e-3
  c.optimizer.b2 = 0.999
  c.eval.every = 100
  return base.parse(c, arg)


def get_sweep() -> Iterator[dict[str, Any]]:
  """Each mixer with each seed; steps and data are the same."""
  for mixer in MIXERS:
    for seed in SEEDS:
      yield mixer | {"seed": seed}
