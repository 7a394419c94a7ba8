"""38 mixers with one size of state on ten small tasks: recall, state tracking, copying, MAD's problems, and bytes.

Two mixers of width 64, each followed by a gated MLP. What sets a mixer's state (a key in MIXERS) is chosen so that one
layer keeps 8 KiB of one sequence, within a quarter, taps of convolutions included; LOOSE are those without such a key,
or whose state grows with the sequence. Not here are rnn, min_gru, s6, mlstm (but mlstm_large), event_ssm, sgconv, mla
and its kin, cca, fox, Titans with attention, and mixers of whole sequences or images. All get the same rows, steps and
learning rates. The budgets are small: who learns here learns fast, and who does not may learn later.

Cost: 19 runs of two tasks took 85 to 702 seconds each, 224 on average, on one core of a slow and busy host; at that
rate all 760 take two days. `--only task=mqar` runs a column and `--only mixer=mamba` a row.

  python main.py --config configs/equal_states.py:task=mqar,mixer=mamba,m.state=13 --workdir runs/equal_mamba
  ./dev sweep --config configs/equal_states.py --out runs/equal_states --jobs 2
  ./dev report runs/equal_states --by mixer --across task
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import bytes as bytes_config
from configs import grammar, mad, mqar, selective_copying, word_problem

BYTES = 8192  # of the state of one layer
LEARNING_RATES = (2e-3, 6e-3)
MAD = "batch=32,vocab=0,steps=1500"
# a task's config file, and what makes it small
TASKS = {
  "mqar": (mqar, "length=64,pairs=4,batch=32,steps=1500,stages=((0,1),(150,2),(500,4))"),
  "s3": (word_problem, "group=S3,length=32,batch=32,steps=1500,eval_sizes=()"),
  "a5": (word_problem, "group=A5,length=32,batch=32,steps=1500,eval_sizes=()"),
  "copying": (selective_copying, "length=72,batch=32,steps=1500,stages=()"),
  "in_context": (mad, f"problem=in_context_recall,{MAD}"),
  "noisy": (mad, f"problem=noisy_in_context_recall,{MAD}"),
  "fuzzy": (mad, f"problem=fuzzy_in_context_recall,{MAD}"),
  "memorization": (mad, f"problem=memorization,{MAD},steps=400"),
  "compression": (mad, f"problem=compression,{MAD}"),
  "bytes": (bytes_config, "batch=8,length=256,eval_length=1024,steps=800,eval.chunk=0,generate.tokens=0"),
}
SMALL = "pattern=m-,-=gated_mlp,width=64,depth=4,b2=0.98,warmup=100,cpu_devices=1,eval.every=0,save.every=2000"
MIXERS: dict[str, dict[str, Any]] = {
  "lssl": {"m.state": 32},
  "s4": {"m.state": 32},
  "s4d": {"m.state": 32},
  "dss": {"m.state": 16},
  "gss": {"m.state": 64},
  "liquid_s4": {"m.state": 32},
  "s5": {"m.state": 2048},
  "lru": {"m.state": 1024},
  "h3": {"m.state": 16},
  "hyena_modal": {"m.state": 13},
  "gated_conv": {"m.taps": 33},
  "base_conv": {"m.taps": 17},
  "mega": {"m.chunk": 4},
  "mamba": {"m.state": 13},
  "mamba2": {"m.state": 12},
  "mamba3": {"m.state": 14},
  "rglru": {"m.inner": 512},
  "mlstm_large": {"m.heads": 1},
  "rwkv6": {"m.head_size": 32},
  "rwkv7": {"m.head_size": 32},
  "titans": {"m.layers": 1, "m.heads": 8},
  "linear_transformer": {"m.heads": 2, "position": "learned"},
  "performer": {"m.features": 28, "position": "learned"},
  "based": {"m.key_size": 6, "position": "learned"},
  "retnet": {"m.heads": 4},
  "lightning": {"m.heads": 2},
  "gla": {"m.heads": 1},
  "hgrn2": {"m.head_size": 32},
  "delta_net": {"m.heads": 4},
  "gated_delta_net": {"m.head_size": 16},
  "kda": {"m.head_size": 24},
  "local": {"m.heads": 4, "m.kv_heads": 4, "m.window": 16, "m.position": "rope"},
}
LOOSE: dict[str, dict[str, Any]] = {
  "softmax": {"m.heads": 2, "m.position": "rope"},
  "hyena": {"m.max_len": 1024},
  "slstm": {},
  "lstm": {},
  "gru": {},
  "rwkv4": {},
}


def get_config(arg: str = "") -> ConfigDict:
  """`task`, and keys of the task's own config file."""
  task, arg = grammar.take(arg, "task", TASKS)
  module, small = TASKS[task]
  if task == "bytes" and ("position", "learned") in grammar.pairs(arg):
    # it is evaluated in rows of 1,024
    small += ",max_len=1024"
  return module.get_config(",".join(filter(None, [small, SMALL, arg])))


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields every mixer on every task, at one learning rate after the other."""
  for lr in LEARNING_RATES:
    for task in TASKS:
      for mixer, fixed in (MIXERS | LOOSE).items():
        yield {"task": task, "mixer": mixer, **fixed, "lr": lr}
