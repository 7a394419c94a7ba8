"""Induction heads by attention with three kinds of positions, H3, Hyena and Mamba: trained at 256, asked to 2^20.

Table 11 of Gu & Dao 2023 (arXiv:2312.00752). Published in per cent: Mamba 100 at every length from 2^6 to 2^20; H3 100
to 2^8, 80.9 at 2^9 and falling; Hyena 100 to 2^9, 44.1 at 2^10; attention with learned positions 99.6 and 100 to 2^8,
58.6 at 2^9; rotary 100 to 2^8, 83.6 at 2^9; xPos 100 to 2^8, 99.6 at 2^9, 67.6 at 2^10. Two layers of width 64, batch
8, the curriculum of configs/induction_heads.py with 8,000 steps in place of 204,800.

Lengths end where a model's do: learned positions and Hyena's filters at their tables' 2^14, attention where its square
takes too long, what has a state at 2^20, read by chunks. An evaluation reads 2^19 tokens of each length but at least
one batch: 256 rows to 2^11, then fewer (eight at 2^18 and above).

Planned cost: 5 to 20 minutes of training a run on one core, 14 runs, and up to 20 minutes for the last evaluation.

  python main.py --config configs/induction_table.py:model=xpos --workdir runs/induction_xpos
  ./dev sweep --config configs/induction_table.py --out runs/induction_table --jobs 2
  ./dev report runs/induction_table --by model --metric eval/length_1024/accuracy
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import grammar, induction_heads

STAGES = "((0,64,4),(300,256,4),(1000,256,1))"
SMALL = f"steps=8000,schedule=cosine,stages={STAGES},cpu_devices=1,eval_tokens=524288,eval.every=0,save.every=2000"


def lengths(most: int) -> str:
  """Returns the powers of two from 2^6 to 2^most, as a config takes them."""
  return f"eval_lengths=({','.join(str(2**k) for k in range(6, most + 1))})"


MODELS = {
  "mamba": f"mixer=mamba,eval.chunk=4096,{lengths(20)}",
  "rope": f"mixer=softmax,m.position=rope,{lengths(14)}",
  "xpos": f"mixer=softmax,m.position=xpos,{lengths(14)}",
  # the table starts at width^(-1/2), see configs/mqar.py
  "learned": f"mixer=softmax,position=learned,embed_std=0.125,max_len=16384,{lengths(14)}",
  "h3": f"mixer=h3,eval.chunk=4096,{lengths(20)}",
  "hyena": f"mixer=hyena,m.max_len=16384,{lengths(14)}",
}


def get_config(arg: str = "") -> ConfigDict:
  """`model`: a row of the table; and keys of configs/induction_heads.py."""
  model, arg = grammar.take(arg, "model", MODELS)
  return induction_heads.get_config(",".join(filter(None, [SMALL, MODELS[model], arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields every model at two rates, and three seeds of Mamba."""
  for lr in (2e-3, 1e-3):
    for model in MODELS:
      yield {"model": model, "lr": lr, "seed": 0}
  for seed in (1, 2):
    yield {"model": "mamba", "lr": 2e-3, "seed": seed}
