"""Parses the command line: flags, the config that they name, and one line for each mistake in them."""

import difflib
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from hybrids import sections
from mistake import Mistake
from training import config_file, settings
from training import workdir as workdir_module

MODES = ("train", "eval", "generate", "chat", "count")
KINDS = (
  *("mixers", "tasks", "configs", "optimizers", "schedules", "embeddings", "heads", "norms", "models"),
  *("evaluators",),
)
# flags of --mode generate: where given, they replace the config's generate section
GENERATE = (
  *("prompt", "tokens", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "stop", "logit_bias", "seed"),
)

# flags of --mode generate that are no settings of a config: for many prompts, or many continuations of one
COMPLETE = ("num_return_sequences", "num_beams", "length_penalty", "batch")

# flags of --mode generate and chat about a draft model
DRAFT = ("draft", "num_speculative_tokens")

# what --contexts may ask for
CONTEXTS = range(1, 2**31)


def parse(argv: Sequence[str], environ: Mapping[str, str] = os.environ) -> flags.FlagValues:
  """Reads the command line. Without --config, the config is that of the run in --workdir.

  Raises:
    ValueError: an unknown flag or config key, a value that does not fit, a missing file; in one line.
  """
  argv = _with_stored_config(_with_home(list(argv)))
  if config := _value(argv, "config"):
    config_file.find(config.partition(":")[0])
  try:
    values = _define(argv, environ)
    stray = values(argv)[1:]
    if values.help or values.list or values.describe is not None:
      return values
    if values["config"].present:
      values.config.to_dict()
  except Mistake:
    raise
  except (AttributeError, KeyError) as error:
    raise Mistake(_explain(argv, error)) from None
  except flags.UnrecognizedFlagError as error:
    raise Mistake(_of_config(argv, values, error.flagname) or _last_line(error)) from None
  except flags.IllegalFlagValueError as error:
    raise Mistake(_of_another_kind(argv, error) or _last_line(error)) from None
  except (flags.Error, OSError) as error:
    raise Mistake(_last_line(error)) from None
  except ValueError as error:
    # such as --config..x=1, which names no key
    raise Mistake(f"{_last_line(error)}; write --config.KEY=VALUE") from None
  if stray:
    raise Mistake(
      f"{stray[0]!r} is not a flag; write --config FILE.py[:key=value,…], --config.KEY=VALUE, --workdir DIR"
    )
  _check(values)
  return values


def each_config(argv: Sequence[str]) -> dict[str, list[str]]:
  """Maps each --config of a command that counts several to the command with that one alone; any other to itself.

  Raises:
    Mistake: several are given to another mode.
  """
  words, places = list(argv), []
  for i, word in enumerate(words[1:], 1):
    flag, equals, _ = word.lstrip("-").partition("=")
    if word.startswith("-") and flag == "config":
      places.append((i, i + 1 if equals else i + 2))
  if len(places) < 2:
    return {_value(words, "config") or "": words}
  if (mode := _value(words, "mode")) != "count":
    raise Mistake(f"--config is given {len(places)} times; --mode count takes several, --mode {mode or 'train'} one")
  others = [word for i, word in enumerate(words) if not any(start <= i < end for start, end in places)]
  each = [[*others, *words[start:end]] for start, end in places]
  return {_value(command, "config") or "": command for command in each}


def usage(values: flags.FlagValues) -> str:
  """Returns the help text of all flags."""
  return values.get_help(include_special_flags=False)


def _define(argv: list[str], environ: Mapping[str, str]) -> flags.FlagValues:
  # values of our own, not absl's global ones, so that a process can parse more than one command line
  values = flags.FlagValues()
  here: dict[str, Any] = {"flag_values": values}
  config_flags.DEFINE_config_file("config", None, "config file, with its argument after a colon", sys_argv=argv, **here)
  values["config"].parser = _Complete(values["config"].parser, argv)
  flags.DEFINE_string("workdir", None, "folder of the run", **here)
  flags.DEFINE_enum("mode", "train", MODES, "what to do", **here)
  flags.DEFINE_integer("from-step", None, "train: the checkpoint to go on from; the newest by default", **here)
  flags.DEFINE_integer("step", None, "eval, generate: the checkpoint to use; the newest by default", **here)
  flags.DEFINE_string("prompt", None, "generate: text to go on from", **here)
  flags.DEFINE_integer("tokens", None, "generate: how many", **here)
  flags.DEFINE_float("temperature", None, "generate: 0 takes the likeliest token", **here)
  flags.DEFINE_integer("top_k", None, "generate: among the k likeliest; 0 for all", **here)
  flags.DEFINE_float("top_p", None, "generate: among the likeliest that reach p together; 1 for all", **here)
  flags.DEFINE_float(
    "min_p", None, "generate: among tokens that are at least this fraction as likely as the best", **here
  )
  flags.DEFINE_float("repetition_penalty", None, "generate: above 1 makes tokens of the context rarer", **here)
  flags.DEFINE_multi_string("stop", None, "generate: a text before which to end; may be given again", **here)
  flags.DEFINE_multi_string(
    "logit_bias", None, "generate: TOKEN=VALUE, added to the token's logit; -inf forbids it; may be given again", **here
  )
  flags.DEFINE_integer("seed", None, "generate: of the draws", **here)
  flags.DEFINE_string("prompts", None, "generate: file of prompts, .txt (one a line) or .jsonl ('prompt')", **here)
  flags.DEFINE_string("out", None, "generate: file for the lines of JSON; standard output by default", **here)
  flags.DEFINE_integer("num_return_sequences", None, "generate: continuations of each prompt", **here)
  flags.DEFINE_integer("num_beams", None, "generate: width of a beam search, which takes the place of drawing", **here)
  flags.DEFINE_float("length_penalty", None, "generate: of a beam search; above 1 favours long texts", **here)
  flags.DEFINE_string("draft", None, "generate: folder of a run whose smaller model proposes tokens", **here)
  flags.DEFINE_integer(
    "num_speculative_tokens", None, "generate: tokens that it proposes at once; 4 if not given", **here
  )
  flags.DEFINE_integer("batch", None, "generate: prompts that are continued together", **here)
  address = environ.get("JAX_COORDINATOR_ADDRESS", "")
  flags.DEFINE_string("coordinator", address, "several processes: host:port of process 0", **here)
  flags.DEFINE_integer("processes", environ.get("JAX_NUM_PROCESSES", 0), "several processes: how many", **here)
  flags.DEFINE_integer("process", environ.get("JAX_PROCESS_ID", -1), "several processes: which is this one", **here)
  flags.DEFINE_integer("patience", 300, "several processes: seconds to wait for the others", **here)
  flags.DEFINE_enum("list", None, KINDS, "name all of a kind", **here)
  flags.DEFINE_string("describe", None, "what can be set of a mixer, task, config, optimizer …", **here)
  flags.DEFINE_list("contexts", None, "count: tokens of the sequences whose states are counted, by commas", **here)
  flags.DEFINE_bool("json", False, "count: print one line of JSON", **here)
  flags.DEFINE_bool("debug", False, "show where an error comes from", **here)
  flags.DEFINE_bool("help", False, "show this", short_name="h", **here)
  return values


class _Complete(flags.ArgumentParser):
  """A parser of configs which finds the file, and fills up the model section so that each field it has can be set.

  Names that the command line changes come first: they decide which fields there are.
  """

  syntactic_help = ""

  def __init__(self, inner: flags.ArgumentParser, argv: Sequence[str]):
    self._inner = inner
    self._names = [match for word in argv[1:] if (match := re.match(r"--?config\.model\.(.*\bname)=(.*)", word))]

  def parse(self, argument: Any) -> Any:
    file, colon, given = argument.partition(":")
    path = config_file.find(file)
    # the parser runs a file in what is left of the last one's module, whose get_config it would take for this one's
    sys.modules.pop("config_config", None)
    try:
      config = self._inner.parse(f"{path}{colon}{given}")
    except Mistake:
      raise
    except (Exception, SystemExit) as error:
      raise Mistake(f"config file {path} failed: {type(error).__name__}: {_last_line(error)}; correct it") from error
    if not isinstance(config, ml_collections.ConfigDict):
      raise Mistake(f"get_config() of {path} gives a {type(config).__name__}; it must return a ConfigDict")
    if "model" not in config:
      return config
    with config.unlocked():
      model = config.model.to_dict()
      for match in self._names:
        here: dict[str, Any] = model
        for part in match[1].split(".")[:-1]:
          here = here.setdefault(part, {})
        # another class has other fields
        here.clear()
        here["name"] = match[2]
      config.model = _settable(sections.complete(model))
    return config

  def flag_type(self) -> str:
    return "config file"


def _settable(value: Any) -> Any:
  """Returns a section in which None can be replaced by any value."""
  if isinstance(value, Mapping):
    return ml_collections.ConfigDict({key: _settable(item) for key, item in value.items()})
  return ml_collections.config_dict.placeholder(object) if value is None else value


def _with_home(argv: list[str]) -> list[str]:
  """Expands `~` in --workdir, which shells leave alone after an equals sign."""
  folder = _value(argv, "workdir")
  if folder is None:
    return argv
  if not folder.strip() or "\0" in folder:
    raise Mistake("--workdir is empty or has a zero byte; give the folder of the run, --workdir=. for the current one")
  if not folder.isascii() and folder != folder.encode(errors="replace").decode():
    raise Mistake(f"--workdir={ascii(folder)} has bytes that are no UTF-8, which checkpoints cannot be written to")
  try:
    # the last one counts
    return [*argv, f"--workdir={Path(folder).expanduser()}"]
  except RuntimeError as error:
    raise Mistake(f"--workdir={folder}: {error}; give a path without '~'") from None


def _check(values: flags.FlagValues) -> None:
  if values.workdir is None and values.mode != "count":
    raise Mistake(f"--mode {values.mode} needs --workdir, the folder of the run")
  if not values["config"].present:
    where = "" if values.workdir is None else f", and {values.workdir} holds no run to take it from"
    raise Mistake(f"--config is missing{where}; e.g. --config configs/bytes.py")
  if values.step is not None and values.mode not in ("eval", "generate", "chat"):
    raise Mistake(f"--step={values.step} is for --mode eval and generate; training goes on from the newest checkpoint")
  if values["from-step"].value is not None and values.mode != "train":
    raise Mistake(f"--from-step={values['from-step'].value} is for --mode train; give --step")
  if values["from-step"].value is not None and not (Path(values.workdir) / workdir_module.CONFIG).exists():
    raise Mistake(f"--from-step={values['from-step'].value}: {values.workdir} holds no run with checkpoints")
  if not 1 <= values.patience < 2**31:
    raise Mistake(f"--patience={values.patience}; give at least 1 second, and fewer than 2^31")
  if values.json and values.mode != "count":
    raise Mistake(f"--json is for --mode count, not {values.mode}")
  if values.contexts is not None and values.mode != "count":
    raise Mistake(f"--contexts is for --mode count, not {values.mode}")
  contexts(values)
  given = [name for name in (*GENERATE, *DRAFT, *COMPLETE, "prompts", "out") if values[name].present]
  if values.mode == "chat":
    given = [name for name in given if name not in (*GENERATE, *DRAFT) or name == "prompt"]
  if given and values.mode != "generate":
    raise Mistake(f"--{given[0]} is for --mode generate, not {values.mode}")
  if values.seed is not None and values.seed not in settings.SEEDS:
    raise Mistake(f"--seed={values.seed}; it must be a whole number of 32 bits, e.g. 0")
  beams = values.num_beams is not None and values.num_beams != 1
  idle = ("temperature", "top_k", "top_p", "min_p", "seed") if beams else ("length_penalty",)
  if unused := [name for name in idle if values[name].present]:
    what = "which draws nothing" if beams else "which is for --num_beams above 1"
    raise Mistake(f"--{unused[0]} changes nothing {'in a beam search, ' if beams else 'here, '}{what}; leave it out")
  if values.num_speculative_tokens is not None and values.draft is None:
    raise Mistake("--num_speculative_tokens changes nothing here, which is for --draft; leave it out")
  if values.draft is not None and beams:
    raise Mistake(f"--draft and --num_beams={values.num_beams} are both given; leave one out")
  if values.prompts == "" or values.out == "":
    raise Mistake(f"--{'out' if values.out == '' else 'prompts'} is empty; name a file")
  if values.prompts and values.out and os.path.realpath(values.prompts) == os.path.realpath(values.out):
    raise Mistake(f"--out={values.out} is the file of --prompts, which would be lost; give another")
  if values.prompt is not None and values.prompts is not None:
    raise Mistake(f"--prompt and --prompts={values.prompts} are both given; leave one out")


def _with_stored_config(argv: list[str]) -> list[str]:
  """Adds the config of the run in --workdir where --config is missing."""
  if _value(argv, "config") is not None:
    return argv
  folder = _value(argv, "workdir")
  if folder is None or not (Path(folder) / workdir_module.CONFIG).exists():
    return argv
  return [argv[0], f"--config={workdir_module.__file__}:{folder}", *argv[1:]]


def _value(argv: list[str], name: str) -> str | None:
  """Returns a flag's last value, before the flags are parsed."""
  found = None
  for i, word in enumerate(argv[1:], 1):
    flag, equals, value = word.lstrip("-").partition("=")
    if word.startswith("-") and flag == name:
      found = value if equals else next(iter(argv[i + 1 :]), "")
  return found


def _of_another_kind(argv: list[str], error: Exception) -> str:
  """Says what the value of an override must be; nothing where the error is about something else."""
  found = re.match(r"flag --config\.([^=\s]+)=(.*?): ", str(error), re.S)
  if not found:
    return ""
  value: Any = _plain(argv)
  for part in found[1].split("."):
    value = value[part] if isinstance(value, Mapping) and part in value else None
  if isinstance(value, Mapping):
    inside = next(iter(value), "KEY")
    return f"--config.{found[1]}={found[2]}: it is a section; set a key of it, such as --config.{found[1]}.{inside}=…"
  words = {bool: "true or false", int: "a whole number", float: "a number", tuple: "a sequence in brackets"}
  need = words.get(type(value), "")
  return f"--config.{found[1]}={found[2]}: it must be {need}, such as {value!r}" if need else ""


def _plain(argv: list[str]) -> Mapping[str, Any]:
  """Returns the config without the command line's overrides."""
  plain = flags.FlagValues()
  config_flags.DEFINE_config_file("config", flag_values=plain, sys_argv=[argv[0]])
  plain["config"].parser = _Complete(plain["config"].parser, argv)
  plain([argv[0], f"--config={_value(argv, 'config') or ''}"])
  return plain.config.to_dict()


def _explain(argv: list[str], error: Exception) -> str:
  """Explains which of the overrides names a key that the config does not have."""
  path = _value(argv, "config") or ""
  try:
    config = _plain(argv)
  except Exception as inside:
    return f"{path} failed: {type(inside).__name__}: {_last_line(inside)}"
  for word in argv[1:]:
    key = word.lstrip("-").partition("=")[0]
    if word.startswith("-") and key.removeprefix("no").startswith("config."):
      found = _missing(config, key.partition(".")[2])
      if found:
        return found
  return f"{path}: {_last_line(error)}"


def _of_config(argv: list[str], values: flags.FlagValues, name: str) -> str:
  """Says how to write a flag that is the name of a key of the config; nothing where it is none."""
  if not values["config"].present:
    return ""
  config = values.config.to_dict()
  sections = [key for key, section in config.items() if isinstance(section, Mapping) and name in section]
  if name in config and not isinstance(config[name], Mapping):
    key = name
  elif sections:
    key = f"{sections[0]}.{name}"
  elif "." in name and not _missing(config, name):
    key = name
  else:
    return ""
  value = _value(argv, name)
  value = "VALUE" if not value or value.startswith("--") else value
  return (
    f"--{name} is no flag but a key of the config: write --config.{key}={value}, or :{key}={value} after the config"
  )


def _missing(config: Mapping[str, Any], key: str) -> str | None:
  here: Any = config
  for part in key.split("."):
    if not isinstance(here, Mapping) or part not in here:
      choices = list(here) if isinstance(here, Mapping) else []
      close = difflib.get_close_matches(part, choices, n=1)
      hint = f" (did you mean {close[0]!r}?)" if close else ""
      if here is config.get("evaluators"):
        return f"--config.{key}: add an evaluator where the config is named: --config FILE:{key}=…"
      return f"--config.{key}: the config has no {part!r} there{hint}; it has {choices}"
    here = here[part]
  return None


def _last_line(error: BaseException) -> str:
  """Returns the reason at the end of an error, perhaps a whole traceback: one line, or three with a caret below."""
  text = str(error).rstrip()
  if text.endswith("^"):
    return text.rpartition("Mistake: ")[2]
  lines = [line.strip() for line in text.splitlines() if line.strip()]
  last = lines[-1] if lines else type(error).__name__
  for kind in ("Mistake: ", "ValueError: ", "TypeError: "):
    if len(lines) > 1 and kind in last:
      return last.partition(kind)[2]
  return last


def contexts(values: flags.FlagValues) -> tuple[int, ...] | None:
  """Returns the lengths of --contexts, None where they are not given.

  Raises:
    Mistake: one is no length.
  """
  if values.contexts is None:
    return None
  is_length = lambda word: re.fullmatch("[0-9]{1,10}", word) and int(word) in CONTEXTS
  if not values.contexts or not all(map(is_length, values.contexts)):
    text = ",".join(values.contexts)
    raise Mistake(f"--contexts={text}; give whole numbers from 1 to {CONTEXTS[-1]} and commas, e.g. 4096,262144")
  return tuple(map(int, values.contexts))


def generate_changes(values: flags.FlagValues) -> dict[str, Any]:
  """Returns the flags that replace values of the config's generate section, and how much a draft model proposes."""
  return {name: values[name].value for name in (*GENERATE, "num_speculative_tokens") if values[name].present}


def completion_changes(values: flags.FlagValues) -> dict[str, Any]:
  """Returns the flags that ask for several continuations, or say how many prompts are continued together."""
  return {name: values[name].value for name in COMPLETE if values[name].present}
