"""Parity and modular arithmetic, trained on up to 127 tokens and asked about up to 255 (Beck et al. 2024, App. D.2).

Layers whose state can change sign or turn (arXiv:2411.12537), or whose recurrence is not linear, can learn parity of
any length; positive decays and softmax attention cannot. Published: 2 to 39 tokens, 20,000 steps of 256 rows, the
answer alone scored: `:length=39,score=last,batch=256,steps=20000,lr=1e-3,warmup=2000,weight_decay=0.1,save.every=1000`.
Here the value so far is scored at every token. Up to 39 tokens 400 steps of 64 rows are enough for a perfect score
there, but a Mamba-3's angle is then too rough for 160 and more; up to 127 it was right at 96 % of them.
DeltaNets have no short convolutions: with taps=4 a token's key depends on those before it, and one with negative
eigenvalues, perfect up to 39 tokens, was right at 78 % of 40 to 255 after 1,000 steps; with taps=1 at 100 % after 100.
Mamba-3 decays by softplus(.), which gets near 0 sooner than its newer default. (Throw-away runs, one seed.)

  python main.py --config configs/state_tracking.py:mixer=slstm --workdir runs/parity_slstm
  python main.py --config configs/state_tracking.py:task=brackets,mixer=slstm --workdir runs/brackets
  ./dev sweep --config configs/state_tracking.py --out runs/parity
  ./dev report runs/parity --by mixer --metric eval/length_192_255/accuracy
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base, grammar

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
  task, arg = grammar.take(arg, "task", TASKS)
  c = base.defaults()
  c.steps = 800
  c.data = ConfigDict(
    {
      "batch": 24,
      "length": 127,
      "seed": 0,
      "shortest": 2,
      "eval_sizes": ((2, 39), (40, 127), (128, 191), (192, 255)),
      "eval_rows": 512,
      **TASKS[task],
    }
  )
  c.optimizer.lr = 2e-3
  c.optimizer.b2 = 0.999
  c.eval.every = 400
  return base.parse(c, arg)


def get_sweep() -> Iterator[dict[str, Any]]:
  """Returns each mixer with each seed; steps and data are the same."""
  for mixer in MIXERS:
    for seed in SEEDS:
      yield mixer | {"seed": seed}
