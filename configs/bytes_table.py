"""Bits per byte of ten mixers and two hybrids at equal parameters: the standard library's source, one pass budget.

All have 161 thousand parameters within 2 % (the Mamba of configs/bytes.py has 161,184), see the same 2,800 steps of 8
rows of 256 bytes, and are read in rows of 1,024 without a state from before. Widths are multiples of 8 and the MLPs are
as wide as makes the numbers equal. Mamba, Mamba-2 and the LSTM stand alone, the others with an MLP after each mixer, as
published. Two rates; further seeds of the best by `--only model=mamba lr=4e-3 --seeds 1,2`.

Planned cost: 4 to 15 minutes a run on one core, 24 runs.

  python main.py --config configs/bytes_table.py:model=griffin --workdir runs/bytes_griffin
  ./dev sweep --config configs/bytes_table.py --out runs/bytes_table --jobs 2
  ./dev report runs/bytes_table --by model --metric eval/validation/bits_per_byte
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import bytes as bytes_config
from configs import grammar

SMALL = "steps=2800,eval_length=1024,eval.chunk=0,eval.every=0,save.every=1400,cpu_devices=1,generate.tokens=0"
MODELS = {
  "mamba": "mixer=mamba,width=96",
  "mamba2": "mixer=mamba2,m.state=64,width=96",
  "s5": "mixer=s5,width=80,mlp=4.15,depth=4",
  "s4d": "mixer=s4d,width=72,mlp=4.5,depth=4",
  "rglru": "mixer=rglru,width=80,mlp=3.8,depth=4",
  "lstm": "mixer=lstm,width=92",
  "softmax": "mixer=softmax,m.position=rope,width=80,mlp=3.5,depth=4",
  "retnet": "mixer=retnet,width=64,mlp=4.8,depth=4",
  "gla": "mixer=gla,width=72,mlp=4.7,depth=4",
  "gated_delta_net": "mixer=gated_delta_net,width=72,mlp=3.75,depth=4",
  # one layer of attention after one of Mamba
  "mamba_attention": "pattern=m-a-,m=mamba,a=softmax,a.position=rope,width=80,-.expand=2.55,depth=4",
  # two of RG-LRU, one of local attention (De et al. 2024, arXiv:2402.19427)
  "griffin": "pattern=r-r-a-,r=rglru,a=local,a.window=128,width=72,-.expand=3.08,depth=6",
}


def get_config(arg: str = "") -> ConfigDict:
  """`model`: a row of the table; and keys of configs/bytes.py."""
  model, arg = grammar.take(arg, "model", MODELS)
  return bytes_config.get_config(",".join(filter(None, [SMALL, MODELS[model], arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields every model at each rate."""
  for lr in (4e-3, 2e-3):
    for model in MODELS:
      yield {"model": model, "lr": lr}
