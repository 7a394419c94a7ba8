"""Defaults of every section, and what may stand after the colon: `configs/mqar.py:mixer=s5,width=128`.

A section is exactly the keyword arguments of what it names (data: the task; model: the model, with sections for its
embedding, body and head; optimizer: the update rule). The model's sections need not be complete: a field that is
missing has the default of its class. configs/grammar.py says how pairs are written and quoted. For example:

| written              | sets                              | which is                                                 |
|----------------------|-----------------------------------|----------------------------------------------------------|
| mixer=s5             | model.body.letters.m.name=s5      | the one mixer of the model: the pattern is 'm'           |
| mlp=2                | model.body.letters.-.expand=2     | an MLP of that expansion, as a letter '-' after each one |
| pattern=ma,a=softmax | model.body.letters.a.name=softmax | the mixer of a letter ('-' is the MLP without it)        |
| m.state=4            | model.body.letters.m.state=4      | an argument of a letter's mixer                          |
| m.branch.scale=0.5   | model.body.letters.m.scale=0.5    | a field of a letter's branch: norm_position, dropout …   |
| body.branch.scale=2  | model.body.branch.scale=2         | a field of the branches of all letters                   |
| head.z_loss=1e-4     | model.head.z_loss=0.0001          | any field of the model's embed, body and head            |
| dropout=0.1          | model.body.branch.dropout=0.1     | a field of the model with a short name: see MODEL        |
| lr=0.5               | optimizer.lr=0.5                  | a key of the top level or the first section that has it  |
| seed=1               | data.seed=1                       | both seeds: of the parameters and of the data            |
| eval.every=7         | eval.every=7                      | any key by its full path                                 |
| evaluators.a.name=x  | evaluators.a.name=x               | a field of an evaluator, which need not be there yet     |

A pattern that is longer than the config's depth is taken whole, unless `depth` is given too, which then cuts or tiles
it. Later pairs win. The result is locked: a key that is not there cannot be set, but for the model's. Where `steps` are
no more than the config's warm-up and that is not given, it becomes a tenth of them.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from configs.grammar import cast, convert, literal, number, pairs, unquoted
from defaults import RUN
from mistake import Mistake, hint

# searched in this order for a key given without its section
SECTIONS = ("data", "model", "optimizer", "mesh")
MLP = "-"
# what stands around a mixer -> its own fields, which a letter's arguments set; the others are the mixer's. A test holds
# it to hybrids/wrap, as no config imports a model.
WRAPPERS = {
  "attention_residual": ("norm", "block", "norm_eps"),
  "bidirectional": ("merge", "shared"),
  "gated_residual": ("streams", "rank", "norm_eps"),
  "hyper_connection": ("norm", "streams", "iterations", "eps", "norm_eps"),
  "image_scan": ("orders", "merge", "shared", "rows", "columns"),
  "reverse_complement": ("merge",),
  "with_embedding": ("norm",),
}
# short names of the model's fields -> where they are, and of which type
MODEL: dict[str, tuple[str, type]] = {
  "width": ("width", int),
  "max_len": ("max_len", int),
  "dtype": ("dtype", str),
  "param_dtype": ("param_dtype", str),
  "position": ("embed.position", str),
  "embed_std": ("embed.std", float),
  "class_token": ("embed.class_token", str),
  "depth": ("body.depth", int),
  "pattern": ("body.pattern", str),
  "remat": ("body.remat", str),
  "unroll": ("body.unroll", int),
  "norm": ("body.branch.norm.name", str),
  "norm_position": ("body.branch.norm_position", str),
  "dropout": ("body.branch.dropout", float),
  "tie": ("head.tie", bool),
  "softcap": ("head.softcap", float),
  "pool": ("head.pool", str),
}
PARTS = ("embed", "body", "head")


def defaults() -> ConfigDict:
  """Returns every key there is, unlocked, for config files to change: a small Mamba on the standard library."""
  return ConfigDict(
    {
      # seed, log_every, kernels, wandb, init_from, init_only, mesh, eval, save, generate: the page defaults.py
      **RUN,
      "steps": 1000,
      "data": text_section(name="bytes"),
      "model": {
        "embed": {"name": "tokens"},
        "body": {"name": "stack", "pattern": "m", "depth": 2, "letters": {"m": {"name": "mamba"}}},
        "head": {"name": "lm"},
      },
      "optimizer": {
        "name": "adamw",
        "lr": 1e-3,
        "schedule": "cosine",
        "warmup": 50,
        "final_lr": 0.0,
        "decay": 0.1,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.0,
        "clip": 1.0,
        "accumulate": 1,
        "ema": 0.0,
        "slow_lr": 1.0,
        "groups": (),
        "skip": 0.0,
        "spike": 0.0,
        "base_width": 0,
      },
    }
  )


def text_section(**changes: Any) -> dict[str, Any]:
  """Returns the data section of the text tasks, changed."""
  return {"batch": 8, "length": 256, "seed": 0, "stateful": False, "eval_length": 0, "vocab": 256} | changes


def classify(config: ConfigDict, *, pool: str) -> None:
  """Gives the model the classifier's head instead of the language model's."""
  config.model.head = ConfigDict({"name": "classifier", "pool": pool})


def pool_events(config: ConfigDict, *, window: int, mode: str, expand: int = 1) -> None:
  """Turns the stack of a locked config into two `event_stages`, of which the second has states `expand` times as large.

  Windows of one event leave the stack as it is.

  Raises:
    Mistake: the window is below 1, or the stack has an odd number of layers, or fewer than four.
  """
  if window < 1:
    raise Mistake(f"window={window}: give the number of events that become one, or 1 to pool none")
  if window == 1:
    return
  stack = config.model.body.to_dict()
  if stack["depth"] < 4 or stack["depth"] % 2:
    raise Mistake(
      f"window={window} pools in two stages of two layers or more; depth={stack['depth']} is not even, or 2"
    )
  stages = []
  for times in (1, expand):
    grown = lambda mixer: {k: v * times if k in ("state", "blocks") else v for k, v in mixer.items()}  # noqa: B023
    letters = {letter: grown(mixer) for letter, mixer in stack["letters"].items()}
    fields = {key: value for key, value in stack.items() if key != "name"}
    stages.append(fields | {"letters": letters, "depth": stack["depth"] // 2})
  body = {"name": "event_stages", "pool": window, "mode": mode, "expand": expand, "stages": tuple(stages)}
  with config.unlocked():
    config.model.body = ConfigDict(body)


def get_config(arg: str = "") -> ConfigDict:
  """Returns the defaults themselves as an experiment."""
  return parse(defaults(), arg)


def parse(config: ConfigDict, arg: str | None) -> ConfigDict:
  """Applies the pairs of `arg` to `config` and locks it.

  Raises:
    ValueError: a pair is malformed, its key does not exist or its value has the wrong type; the message lists the
      choices.
  """
  given = pairs(arg)
  letters = {key for key, _ in given if len(key) == 1}
  body = config.model.body
  in_letters = [key for key, _ in given if len(key.split(".")[0]) == 1 or key == "mlp"]
  if in_letters and not ({"mixer", "pattern"} & dict(given).keys() or "pattern" in body):
    raise Mistake(f"config argument {in_letters[0]} is of a pattern's letter, but body.name={body.name!r} has none")
  # whole mixers first, their arguments and all other keys after
  for key, text in given:
    if key == "mixer":
      body.pattern = "m"
      body.letters = ConfigDict({"m": {"name": unquoted(text)}})
    elif len(key) == 1:
      body.letters[key] = ConfigDict({"name": unquoted(text)})
  for key, text in given:
    head, _, field = key.partition(".")
    if key == "mlp":
      body.letters[MLP] = ConfigDict({"name": "mlp", "expand": number(text, "mlp")})
    elif len(head) == 1 and field:
      set_letter(body, head, field, literal(text, key))
    elif key == "seed":
      config.seed = config.data.seed = convert(key, text, config.seed)
    elif key != "mixer" and len(key) > 1:
      place(config, key, text)
  if "pattern" in body:
    finish_pattern(body, letters, mlp=any(key == "mlp" for key, _ in given))
  keys = {key for key, _ in given}
  if keys & {"pattern", "body.pattern", "model.body.pattern"} and not keys & {
    "depth",
    "body.depth",
    "model.body.depth",
  }:
    # as papers print it: a default depth would cut it
    body.depth = max(body.depth, len(body.pattern))
  if config.optimizer.warmup >= config.steps and not keys & {"warmup", "optimizer.warmup"}:
    # a short trial by `steps` alone
    config.optimizer.warmup = config.steps // 10
  if config.model.head.get("pool") == "cls" and "class_token" not in config.model.embed:
    config.model.embed.class_token = "end"
  return config.lock()


def set_letter(body: ConfigDict, letter: str, field: str, value: Any) -> None:
  """Sets an argument of a letter's mixer, or a field of its branch."""
  if letter == MLP and letter in body.pattern and letter not in body.letters:
    body.letters[MLP] = ConfigDict({"name": "mlp"})
  if letter not in body.letters:
    raise Mistake(
      f"config argument {letter}.… sets an argument of letter {letter!r}, but letters defines {sorted(body.letters)}"
    )
  section, _, rest = field.partition(".")
  if field == "branch":
    raise Mistake(f"config key '{letter}.branch' is a section; set a field of it, such as {letter}.branch.scale=0.5")
  if section == "branch" and "name" in body.letters[letter]:
    body.letters[letter] = ConfigDict({"mixer": body.letters[letter].to_dict()})
  path = rest if section == "branch" else within(body.letters[letter], section) + field
  put(body.letters[letter], path, value, f"{letter}.{field}")


def within(section: ConfigDict, field: str) -> str:
  """Returns where in a letter's section the mixer stands that has the field, "mixer." for each that is around it."""
  inner = section.get("mixer")
  own = "name" in section and field in ("mixer", *WRAPPERS.get(section.name, ()))
  if own or not isinstance(inner, ConfigDict):
    return ""
  return f"mixer.{within(inner, field)}"


def put(section: ConfigDict, path: str, value: Any, key: str) -> None:
  """Sets a field, and makes the sections on the way to it; the key is what messages call it.

  Raises:
    Mistake: something on the way is a value, or the field is a section that is to become one.
  """
  *parts, leaf = path.split(".")
  for part in parts:
    if section.get(part) is None:
      section[part] = ConfigDict()
    elif not isinstance(section[part], ConfigDict):
      raise Mistake(f"config has no key {key!r}: {part}={section[part]!r} is no section, but a value")
    section = section[part]
  if isinstance(section.get(leaf), ConfigDict) and not (value is None or isinstance(value, Mapping)):
    raise is_a_section(key, section[leaf])
  # the class that the field is of checks its type; the value before may have been None, or a default of another type
  with section.ignore_type():
    section[leaf] = value


def is_a_section(key: str, section: ConfigDict) -> Mistake:
  """Returns what is said of a section that is set as if it were a value."""
  return Mistake(f"config key {key!r} is a section; set one of {[f'{key}.{name}' for name in section]}")


def place(config: ConfigDict, key: str, text: str) -> None:
  """Sets the key, given by its full path or by its last name."""
  path = key if "." in key and key.split(".")[0] not in PARTS else find(config, key)
  if path.startswith("model."):
    short = path.removeprefix("model.")
    where, kind = MODEL.get(short, (short, None))
    kind = kind or dict(MODEL.values()).get(where)
    put(config.model, where, literal(text, key) if kind is None else cast(key, text, kind), key)
    return
  if path.startswith("evaluators."):
    # any number of sections, with whatever fields the named class has
    put(config.evaluators, path.removeprefix("evaluators."), literal(text, key), key)
    return
  *sections, leaf = path.split(".")
  here: Any = config
  for name in sections:
    here = here[name] if isinstance(here, ConfigDict) and name in here else ConfigDict()
  if not isinstance(here, ConfigDict) or leaf not in here:
    choices = list(flat(config))
    raise Mistake(f"config has no key {key!r}{hint(key, choices) or f'; its keys are {choices}'}")
  if isinstance(here[leaf], ConfigDict):
    raise is_a_section(key, here[leaf])
  here[leaf] = convert(key, text, here[leaf])


def find(config: ConfigDict, key: str) -> str:
  """Returns the full path of a key given without its section; `name` needs it, being in several."""
  if key in config:
    return key
  if key.split(".")[0] in PARTS:
    return f"model.{key}"
  for section in SECTIONS:
    if key in (MODEL if section == "model" else config[section]) and key != "name":
      return f"{section}.{key}"
  elsewhere = [path for path in flat(config) if path.split(".")[-1] == key]
  if elsewhere:
    raise Mistake(f"config argument {key!r} needs its full path: {elsewhere}")
  short = [*config, *MODEL, *(name for section in SECTIONS for name in config[section]), "mixer", "mlp"]
  choices = sorted(set(short) - {"name", *PARTS})
  # a list of all would hide the one that was meant
  others = hint(key, choices) or f"; choose from {choices}"
  raise Mistake(f"config has no key {key!r}{others}, or give a letter or a full path, e.g. m.state or optimizer.lr")


def flat(config: ConfigDict) -> list[str]:
  """Returns the full paths of all values."""
  paths = []
  for key, value in config.items():
    paths += [f"{key}.{path}" for path in flat(value)] if isinstance(value, ConfigDict) else [key]
  return paths


def finish_pattern(body: ConfigDict, letters: set[str], *, mlp: bool) -> None:
  """Puts in the MLP letters asked for, and checks that pattern and letters belong together."""
  if mlp:
    body.pattern = "".join(letter + MLP for letter in body.pattern if letter != MLP)
  if MLP in body.pattern and MLP not in body.letters:
    body.letters[MLP] = ConfigDict({"name": "mlp"})
  missing = sorted(set(body.pattern) - set(body.letters))
  if missing:
    defined = sorted(body.letters)
    raise Mistake(f"pattern {body.pattern!r} uses {missing}, but letters defines {defined}: add {missing[0]}=NAME")
  unused = sorted(letters - set(body.pattern))
  if unused:
    raise Mistake(f"config arguments define letters {unused}, which pattern {body.pattern!r} does not use")
  for letter in set(body.letters) - set(body.pattern):
    del body.letters[letter]
