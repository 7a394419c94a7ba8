"""Defaults of every section, and what may stand after the colon: `configs/mqar.py:mixer=s5,width=128`.

A section is exactly the keyword arguments of what it names (data: the task; model: the head; optimizer: the update
rule). configs/grammar.py says how pairs are written and quoted; a key is one of

  mixer=NAME       a model of that one mixer: pattern 'm', letter m
  mlp=EXPAND       a letter '-' (a two-layer MLP of that expansion) after each letter of the pattern; depth counts
                   letters
  a=NAME           letter a of the pattern is the mixer NAME ('-' is the MLP unless said otherwise)
  a.heads=4        an argument of letter a's mixer
  width=64         a key of the top level or of the sections data, model, optimizer, mesh, the first that has it
  seed=1           both seeds: of the parameters and of the data
  eval.every=500   any key by its full path

Later pairs win. The result is locked: a key that is not there cannot be set.
"""

from typing import Any

from ml_collections import ConfigDict

from configs.grammar import convert, hint, literal, number, pairs, unquoted
from mistake import Mistake

# searched in this order for a key given without its section
SECTIONS = ("data", "model", "optimizer", "mesh")
MLP = "-"


def defaults() -> ConfigDict:
  """Every key there is, unlocked, for a config file to change: a small Mamba on the standard library's source."""
  return ConfigDict(
    {
      "seed": 0,
      "steps": 1000,
      "log_every": 50,
      "kernels": "auto",
      "wandb": False,
      "data": text_section(name="bytes"),
      "model": {
        "width": 64,
        "depth": 2,
        "pattern": "m",
        "mixers": {"m": {"name": "mamba"}},
        "norm": "rms",
        "norm_position": "pre",
        "position": "none",
        "max_len": 4096,
        "embed_std": 0.02,
        "tie": True,
        "dropout": 0.0,
        "remat": "none",
        "unroll": 1,
        "dtype": "float32",
        "learn_state": False,
      },
      "optimizer": {
        "name": "adamw",
        "lr": 1e-3,
        "schedule": "cosine",
        "warmup": 50,
        "final_lr": 0.0,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "clip": 1.0,
        "accumulate": 1,
        "ema": 0.0,
        "slow_lr": 1.0,
        "groups": (),
      },
      "mesh": {"data": -1, "fsdp": 1, "sequence": 1, "tensor": 1, "cpu_devices": 0},
      "eval": {"every": 500, "chunk": 0, "batches": 0},
      "save": {"every": 500, "keep": 3},
      "generate": {"prompt": "def ", "tokens": 256, "temperature": 0.8, "top_k": 0, "top_p": 1.0, "seed": 0},
    }
  )


def text_section(**changes: Any) -> dict[str, Any]:
  """The data section of the text tasks, changed."""
  return {"batch": 8, "length": 256, "seed": 0, "stateful": False, "eval_length": 0} | changes


def classify(config: ConfigDict, *, pool: str) -> None:
  """Gives the model section the keys of the classifier head instead of the language model's."""
  del config.model.tie
  config.model.pool = pool


def get_config(arg: str = "") -> ConfigDict:
  """The defaults themselves as an experiment."""
  return parse(defaults(), arg)


def parse(config: ConfigDict, arg: str | None) -> ConfigDict:
  """Applies the pairs of `arg` to `config` and locks it.

  Raises:
    ValueError: a pair is malformed, its key does not exist or its value has the wrong type; the message lists the
      choices.
  """
  given = pairs(arg)
  letters = {key for key, _ in given if len(key) == 1}
  # whole mixers first, their arguments and all other keys after
  for key, text in given:
    if key == "mixer":
      config.model.pattern = "m"
      config.model.mixers = ConfigDict({"m": {"name": unquoted(text)}})
    elif len(key) == 1:
      config.model.mixers[key] = ConfigDict({"name": unquoted(text)})
  for key, text in given:
    head, _, field = key.partition(".")
    if key == "mlp":
      config.model.mixers[MLP] = ConfigDict({"name": "mlp", "expand": number(text, "mlp")})
    elif len(head) == 1 and field:
      mixer(config, head)[field] = literal(text, key)
    elif key == "seed":
      config.seed = config.data.seed = convert(key, text, config.seed)
    elif key != "mixer" and len(key) > 1:
      place(config, key, text)
  finish_pattern(config, letters, mlp=any(key == "mlp" for key, _ in given))
  return config.lock()


def mixer(config: ConfigDict, letter: str) -> ConfigDict:
  """The section of one letter's mixer."""
  mixers = config.model.mixers
  if letter == MLP and letter in config.model.pattern and letter not in mixers:
    mixers[MLP] = ConfigDict({"name": "mlp"})
  if letter not in mixers:
    raise Mistake(
      f"config argument {letter}.… sets an argument of letter {letter!r}, but mixers defines {sorted(mixers)}"
    )
  return mixers[letter]


def place(config: ConfigDict, key: str, text: str) -> None:
  """Sets the key, given by its full path or by its last name."""
  path = key if "." in key else find(config, key)
  *sections, leaf = path.split(".")
  where = config
  for name in sections:
    where = where[name] if isinstance(where, ConfigDict) and name in where else ConfigDict()
  if leaf not in where:
    choices = list(flat(config))
    raise Mistake(f"config has no key {key!r}{hint(key, choices)}; its keys are {choices}")
  if isinstance(where[leaf], ConfigDict):
    raise Mistake(f"config key {key!r} is a section; set one of {[f'{key}.{name}' for name in where[leaf]]}")
  where[leaf] = convert(key, text, where[leaf])


def find(config: ConfigDict, key: str) -> str:
  """The full path of a key given without its section; `name` needs it, being in several."""
  if key in config:
    return key
  for section in SECTIONS:
    if key in config[section] and key not in ("name", "mixers"):
      return f"{section}.{key}"
  elsewhere = [path for path in flat(config) if path.split(".")[-1] == key]
  if elsewhere:
    raise Mistake(f"config argument {key!r} needs its full path: {elsewhere}")
  short = [*config, *(name for section in SECTIONS for name in config[section]), "mixer", "mlp"]
  choices = sorted(set(short) - {"name", "mixers"})
  raise Mistake(f"config has no key {key!r}{hint(key, choices)}; choose from {choices}, a letter, or a full path")


def flat(config: ConfigDict) -> list[str]:
  """The full paths of all values."""
  paths = []
  for key, value in config.items():
    paths += [f"{key}.{path}" for path in flat(value)] if isinstance(value, ConfigDict) else [key]
  return paths


def finish_pattern(config: ConfigDict, letters: set[str], *, mlp: bool) -> None:
  """Puts in the MLP letters asked for, and checks that letters and mixers belong together."""
  model = config.model
  if mlp:
    model.pattern = "".join(letter + MLP for letter in model.pattern if letter != MLP)
  if MLP in model.pattern and MLP not in model.mixers:
    model.mixers[MLP] = ConfigDict({"name": "mlp"})
  missing = sorted(set(model.pattern) - set(model.mixers))
  if missing:
    defined = sorted(model.mixers)
    raise Mistake(f"pattern {model.pattern!r} uses {missing}, but mixers defines {defined}: add {missing[0]}=NAME")
  unused = sorted(letters - set(model.pattern))
  if unused:
    raise Mistake(f"config arguments define letters {unused}, which pattern {model.pattern!r} does not use")
  for letter in set(model.mixers) - set(model.pattern):
    del model.mixers[letter]
