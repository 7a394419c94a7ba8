"""MAD's six problems by its protocol (Poli et al. 2024, arXiv:2403.17844), by data/mad.py. Not yet measured.

Two mixers of width 128 with a SwiGLU MLP after each, AdamW with cosine decay (to 1/500; theirs to 1e-6), 200 epochs of
12,800 rows in batches of 128 (20,000 steps; memorization 400). The score of a mixer is its mean accuracy over the
problems, each at the best of the learning rates {1e-4, 5e-4, 1e-3} and weight decays {0, 0.1}, which the sweep tries;
the paper also averages over larger vocabularies, longer rows, smaller training sets and more noise.

  python main.py --config configs/mad.py:problem=compression,mixer=mamba --workdir runs/mad_compression
  ./dev sweep --config configs/mad.py --out runs/mad
  ./dev report runs/mad --by mixer --across problem
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base, grammar

PROBLEMS = (
  "in_context_recall",
  "noisy_in_context_recall",
  "fuzzy_in_context_recall",
  "memorization",
  "compression",
  "selective_copying",
)
MIXERS = ("softmax", "hyena", "h3", "mamba", "mamba2", "gla", "gated_delta_net", "rwkv6", "s4d", "based")
EPOCHS, ROWS, BATCH = 200, 12800, 128


def get_config(arg: str = "") -> ConfigDict:
  """`problem`, `mixer` and sizes by argument."""
  c = base.defaults()
  c.steps = EPOCHS * ROWS // BATCH
  c.data = ConfigDict(
    {
      "name": "mad",
      "batch": BATCH,
      "length": 0,
      "seed": 0,
      "vocab": 0,
      "eval_rows": 1280,
      "problem": PROBLEMS[0],
      "train_rows": 0,
      "noise": 0.2,
      "tokens": 16,
    }
  )
  c.model.width, c.model.body.depth = 128, 4
  # the head is that of the problem
  c.model.head = ConfigDict({})
  c.optimizer.lr, c.optimizer.final_lr, c.optimizer.warmup = 5e-4, 0.002, 0
  c.eval.every = 1000
  own = any(key == "pattern" for key, _ in grammar.pairs(arg))
  return base.parse(c, arg if own else f"pattern=m-,-=gated_mlp,{arg}")


def get_sweep() -> Iterator[dict[str, Any]]:
  """Ten mixers on each problem, at each learning rate and weight decay."""
  for problem in PROBLEMS:
    steps = {"steps": EPOCHS * 256 // BATCH} if problem == "memorization" else {}
    for mixer in MIXERS:
      for lr in (1e-4, 5e-4, 1e-3):
        for decay in (0.0, 0.1):
          yield {"problem": problem, "mixer": mixer, "lr": lr, "weight_decay": decay} | steps
