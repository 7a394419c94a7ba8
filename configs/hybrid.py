"""A hybrid in Jamba's manner, its siblings without attention and of attention alone, and Griffin, at equal parameters.

Four layers of width 64, each with an MLP: Mamba, and attention as the third (Jamba has one in eight, in the middle of
each eight); Mamba alone; attention alone, with rotary positions, which Jamba's lacks; Griffin's RG-LRU with attention
over a window of half the length as the third. The MLPs' inner width makes up for what a mixer has fewer of, so that all
four have as many parameters within 1 %. `task=bytes` is the language model of configs/bytes.py, trained on rows of 256
and read in rows of 1,024, which attention alone does not bear; `--mode eval --config.data.eval_length=256` reads rows
like those of the training. `task=mqar` is associative recall of 8 pairs in 64 tokens. `kind=experts`, which the sweep
leaves out, has eight experts in place of every second MLP, as Jamba has 16: more parameters.

  python main.py --config configs/hybrid.py:task=mqar,kind=attention --workdir runs/hybrid_attention
  python main.py --config configs/hybrid.py:kind=experts,e.balance=0.0 --workdir runs/hybrid_experts_free
  ./dev sweep --config configs/hybrid.py --out runs/hybrid
  ./dev report runs/hybrid --across task
"""

from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from configs import base, grammar, mqar
from configs import bytes as bytes_config

# pattern, and the inner width of its MLPs
KINDS: dict[str, tuple[str, int]] = {
  "hybrid": ("m-m-a-m-", 149),
  "mamba": ("m-", 128),
  "attention": ("a-", 212),
  "griffin": ("r-r-l-r-", 226),
  "experts": ("m-aem-me", 149),
}
LETTERS: dict[str, dict[str, Any]] = {
  "m": dict(name="mamba"),
  "a": dict(name="softmax", heads=4),
  "r": dict(name="rglru", heads=4),
  "l": dict(name="local", heads=4, kv_heads=1, window=128),
  "e": dict(name="moe", experts=8, top_k=2, inner=96, balance=0.01),
}
SMALL = "eval.every=500,save.every=500,save.keep=1,cpu_devices=1,warmup=100,schedule=cosine"
TASKS = {
  "bytes": (bytes_config, f"steps=1500,batch=8,length=256,eval_length=1024,eval.chunk=0,eval.batches=40,{SMALL}"),
  "mqar": (mqar, f"steps=1500,batch=32,length=64,pairs=8,stages=((0,1),(100,2),(300,4),(500,8)),b2=0.95,{SMALL}"),
}
LEARNING_RATES = {"bytes": (3e-3,), "mqar": (1e-3, 3e-3)}
# Griffin is there for its loss beyond the length of the training
COMPARED = {"bytes": ("hybrid", "mamba", "attention", "griffin"), "mqar": ("hybrid", "mamba", "attention")}


def get_config(arg: str = "") -> ConfigDict:
  """`task` and `kind`, and keys of the task's own config file."""
  task, arg = grammar.take(arg, "task", TASKS)
  kind, arg = grammar.take(arg, "kind", KINDS)
  module, small = TASKS[task]
  c = module.get_config(small)
  pattern, inner = KINDS[kind]
  letters = {letter: dict(LETTERS[letter]) for letter in pattern if letter != "-"}
  if kind == "attention":
    letters["a"]["position"] = "rope"
  with c.unlocked():
    c.model.width = 64
    c.model.body.pattern, c.model.body.depth = pattern, 8
    c.model.body.letters = ConfigDict(letters | {"-": dict(name="gated_mlp", inner=inner)})
  return base.parse(c, arg)


def get_sweep() -> Iterator[dict[str, Any]]:
  """Yields every kind on both tasks, three seeds each, recall at two learning rates."""
  for task, rates in LEARNING_RATES.items():
    for seed in range(3):
      for kind in COMPARED[task]:
        for lr in rates:
          yield dict(task=task, kind=kind, lr=lr, seed=seed)
