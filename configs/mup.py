"""Whether the best learning rate stays where it is as a model gets wider: `optimizer.base_width` off, and 32.

Two layers of Mamba, or a Transformer of two layers with heads of 16, on the bytes of the standard library, at widths of
32, 64 and 128 with rates in factors of two, 200 updates each; the table of the read-out is its own. At width 32 a base
width of 32 changes nothing, so it runs once. Measured in docs/results/mup.md.

  python main.py --config configs/mup.py:model=mamba,width=128,base_width=32 --workdir runs/mup_mamba
  ./dev sweep --config configs/mup.py --out runs/mup
  ./dev report runs/mup --only model=mamba --by width --across base_width --against lr \\
      --metric eval/validation/bits_per_byte --png mup.png
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import bytes as bytes_config
from configs import grammar

BASE = 32
WIDTHS = (32, 64, 128)
LEARNING_RATES = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2, 6.4e-2)
SMALL = "steps=200,warmup=20,batch=8,length=128,eval_length=128,eval.chunk=0,eval.every=0,eval.batches=40"
HERE = "save.every=0,cpu_devices=1,generate.tokens=0,tie=false"
MODELS = {
  "mamba": "mixer=mamba,depth=2",
  "transformer": "mixer=softmax,m.position=rope,m.head_size=16,mlp=4,depth=4",
}


def get_config(arg: str = "") -> ConfigDict:
  """`model`: mamba or transformer; and keys of configs/bytes.py."""
  model, arg = grammar.take(arg, "model", MODELS)
  width = int(dict(grammar.pairs(arg)).get("width", BASE))
  heads = f"width={width},m.heads={max(width // 16, 1)}" if model == "transformer" else f"width={width}"
  return bytes_config.get_config(",".join(filter(None, [SMALL, HERE, MODELS[model], heads, arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields every model at each width and rate, without a base width and, where it changes something, with one."""
  for model in MODELS:
    for base in (0, BASE):
      for width in WIDTHS:
        for lr in LEARNING_RATES:
          if not base or width != BASE:
            yield {"model": model, "base_width": base, "width": width, "lr": lr}
