"""Measures recall by the size of the state: MQAR at two sizes, three states and four learning rates a mixer.

The figure of Arora et al. 2024 (arXiv:2402.18668, fig. 2) at CPU size: two layers of width 64, vocabulary 256, the same
steps and rows for all, the best of the learning rates. Only what sets the state differs, which for attention and Hyena,
whose state is their input, is the width. Based reads a gated short convolution, as the paper's models do.

  python main.py --config configs/mqar_states.py:size=64x4,mixer=gated_delta_net,m.head_size=16 --workdir runs/gdn
  ./dev sweep --config configs/mqar_states.py --out runs/mqar_states --jobs 2
  ./dev report runs/mqar_states --across size --against state_bytes --png states.png
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import grammar, mqar

# The pairs grow: asked for four from the start, attention and Gated DeltaNet got no further than a third in 1,000 to
# 1,500 steps. After 500 steps attention of width 64 was right at 29 % with b2=0.999 and at 82 % with 0.95, which
# forgets the gradients of fewer pairs sooner. At 128x16, Gated DeltaNet was at 6 % of four pairs after 300 steps if it
# began with two, and at 98 % of 16 after 800 as here. Attention of width 64 was at 31 to 39 % of 16 after 1,500 steps,
# whatever the stages. (Throw-away runs.)
SIZES = {
  "64x4": "length=64,pairs=4,batch=32,steps=1000,stages=((0,1),(50,2),(250,4))",
  "128x16": "length=128,pairs=16,batch=32,steps=800,stages=((0,1),(50,2),(150,4),(250,8),(350,16))",
}
SMALL = "warmup=50,eval.every=1000,save.every=1000,cpu_devices=1,b2=0.95"
LEARNING_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
# the mixer, what goes with it, and its three states from small to large
MIXERS: dict[str, tuple[dict[str, Any], str, tuple[Any, ...]]] = {
  "softmax": ({"position": "learned", "m.heads": 1}, "width", (32, 64, 128)),
  "based": ({"pattern": "cm", "c": "gated_conv", "m.heads": 2}, "m.key_size", (4, 8, 16)),
  "mamba": ({}, "m.state", (4, 16, 64)),
  "gated_delta_net": ({"m.heads": 2}, "m.head_size", (8, 16, 32)),
  "retnet": ({}, "m.heads", (16, 4, 1)),
  "hyena": ({"m.max_len": 128}, "width", (32, 64, 128)),
  "s4d": ({}, "m.state", (16, 64, 256)),
}


def get_config(arg: str = "") -> ConfigDict:
  """`size`: LENGTHxPAIRS, and keys of configs/mqar.py."""
  size, arg = grammar.take(arg, "size", SIZES)
  return mqar.get_config(",".join(filter(None, [SIZES[size], SMALL, arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Returns every mixer with each state at each learning rate, on both sizes."""
  for size in SIZES:
    for mixer, (fixed, key, states) in MIXERS.items():
      for state in states:
        for lr in LEARNING_RATES:
          # the table starts at width^(-1/2), see configs/mqar.py
          scale = {"embed_std": round(state**-0.5, 3)} if key == "width" else {}
          yield {"size": size, "mixer": mixer, **fixed, key: state, **scale, "lr": lr}
