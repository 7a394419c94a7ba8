"""Word problems of groups, trained at 128 elements and asked at four times as many (data/word_problem.py).

The sweep asks which recurrences multiply permutations: products of n Householder matrices a token (Siems et al. 2025,
arXiv:2502.10297), which with n = 2 are mirrors and turns, as the symmetries of a triangle are, S3; networks whose
recurrence is not linear; and others. docs/results/state_tracking.md has what was measured.

  python main.py --config configs/word_problem.py:group=A5,mixer=rwkv7 --workdir runs/a5_rwkv7
  ./dev sweep --config "configs/word_problem.py:group=S3,length=32,depth=1,steps=3000,lr=3e-3" --out runs/s3
  ./dev report runs/s3 --by mixer,m.products,m.decay --metric eval/length_128_128/accuracy
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base, grammar

# as in parity, no convolution hides which token a key is of
PRODUCT: dict[str, Any] = {"mixer": "gated_delta_product", "m.taps": 1, "m.head_size": 16}
MIXERS: tuple[dict[str, Any], ...] = (
  PRODUCT | {"m.decay": False, "m.products": 2},
  PRODUCT | {"m.decay": False, "m.products": 1},
  PRODUCT | {"m.decay": False, "m.products": 4},
  PRODUCT | {"m.products": 2},
  {"mixer": "slstm"},
  {"mixer": "lstm"},
  {"mixer": "rwkv7"},
  {"mixer": "mamba"},
  {"mixer": "softmax", "m.position": "rope"},
)


def get_config(arg: str = "") -> ConfigDict:
  """Sizes by argument."""
  c = base.defaults()
  c.steps = 2000
  c.data = ConfigDict(
    {
      "name": "word_problem",
      "batch": 64,
      "length": 128,
      "seed": 0,
      "vocab": 0,
      "eval_rows": 512,
      "shortest": 2,
      "score": "all",
      "eval_sizes": ((128, 128), (512, 512)),
      "group": "S5",
    }
  )
  c.optimizer.lr = 1e-3
  c.eval.every = 500
  c = base.parse(c, arg)
  if not {"eval_sizes", "data.eval_sizes"} & dict(grammar.pairs(arg)).keys():
    c.data.eval_sizes = tuple((n, n) for n in (c.data.length, 4 * c.data.length))
  return c


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields three seeds of each mixer."""
  for mixer in MIXERS:
    for seed in (0, 1, 2):
      yield mixer | {"seed": seed}
