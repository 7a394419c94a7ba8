"""Trains, evaluates, samples or counts the model of a config.

  python main.py --config configs/NAME.py[:key=value,...] [--config.KEY=VALUE ...] --workdir DIR [--mode MODE]

  --mode train      trains to config.steps; the same command goes on where the run in DIR was. The default.
                    --from-step N goes on from an older checkpoint, with other optimizer settings if you like.
  --mode eval       evaluates the newest checkpoint, or --step N, and writes eval.json.
  --mode chat       answers line by line on the terminal, or those of a pipe; ./dev chat DIR is the same.
  --mode generate   continues --prompt by --tokens; --temperature, --top_k, --top_p,
                    --min_p, --repetition_penalty, --stop, --logit_bias, --seed; --draft DIR, whose smaller model
                    proposes --num_speculative_tokens. --prompts FILE (.txt: one a line; .jsonl: "prompt")
                    writes lines of JSON, --out FILE to a file; --num_return_sequences, --num_beams, --length_penalty,
                    --batch.
  --mode count      parameters, state, operations and memory, without allocating any; --json prints them as one line.
                    Several --config are counted one after the other.
  --list KIND       names the mixers, tasks, configs, optimizers, schedules, embeddings, heads, norms, models or
                    evaluators.
  --describe NAME   prints what can be set of one of them.

--config is a path or the name of a file in configs/; it may be left out where DIR holds a run. DIR holds config.json,
data.json, run.json, metrics.jsonl, loss.png, tensorboard/, checkpoints/ and, at the end, summary.json.

Exit codes: 0 done; 1 a bug, with a traceback; 2 a mistake in what was asked for or a file that cannot be used, in one
line (--debug shows where); 3 the loss or its gradient was not finite, nothing after it was saved; 4 another process of
the run died; 75 stopped by SIGTERM, SIGHUP, SIGUSR1 or Ctrl-C, and saved if training had begun: the same command goes
on; 130 a Ctrl-C outside of training, or a second one: not saved.
"""

import gc
import json
import math
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import ending
import terminal

DONE, MISTAKE, NOT_FINITE, STOPPED, INTERRUPTED = 0, 2, 3, 75, ending.INTERRUPTED

if __name__ == "__main__":
  # before the imports, which take seconds; training puts its own handlers in the place of these
  ending.begin(STOPPED)
  # nothing that is imported is ever freed, and looking through it again and again takes a tenth of the start
  gc.disable()

import jax  # noqa: E402
from absl import flags as absl_flags  # noqa: E402
from rich.console import Console  # noqa: E402

from inference import chat, completions, count, tokenizer, whole_file  # noqa: E402
from inference.sampling import Sampler, make_sampler, read_bias  # noqa: E402
from mistake import Mistake  # noqa: E402
from training import describe, peers, platform  # noqa: E402
from training import flags as flags_lib  # noqa: E402
from training import workdir as workdir_lib  # noqa: E402
from training.run import Run  # noqa: E402

if __name__ == "__main__":
  gc.freeze()
  gc.enable()


def main(argv: Sequence[str]) -> int:
  """Does what the arguments ask for, and returns the exit code."""
  debug = "--debug" in argv
  try:
    commands = flags_lib.each_config(argv)
    status = DONE
    for name, command in commands.items():
      flags = flags_lib.parse(command)
      if flags.help:
        print(f"{__doc__}\n{flags_lib.usage(flags)}")
      elif flags.list or flags.describe is not None:
        print(describe.names(flags.list) if flags.list else describe.page(flags.describe))
      else:
        status = run(flags, name if len(commands) > 1 else "")
    return status
  except KeyboardInterrupt:
    return INTERRUPTED
  except FloatingPointError as error:
    return fail(error, NOT_FINITE, debug)
  except Mistake as error:
    return fail(error, MISTAKE, debug)
  except OSError as error:
    if error.filename is None:
      raise
    return fail(Mistake(f"{error.filename}: {error.strerror}; make it usable, or give another path"), MISTAKE, debug)
  except Exception as error:
    peers.end_if_lost(error)
    if isinstance(error, MemoryError) or str(error).startswith("RESOURCE_EXHAUSTED"):
      reason = f"not enough memory ({' '.join(str(error).split())[:200]}); lower the batch, the length or the beams"
      return fail(Mistake(reason), MISTAKE, debug)
    raise


def show_counts(flags: Any, name: str) -> None:
  """Prints what a model costs, as a table or a line of JSON; under the name of its config if several are counted."""
  counted = Run.from_config(flags.config)
  contexts = flags_lib.contexts(flags) or count.CONTEXTS
  counts = count.count(counted.model, counted.task, tx=counted.tx, contexts=contexts)
  if flags.json:
    print(json.dumps(({"config": name} if name else {}) | counts))
  else:
    if name:
      print(name)
    Console().print(count.table(counts))


def run(flags: Any, name: str = "") -> int:
  """Builds what the config names, and does what --mode says; `name` is that of one config of several."""
  config, mode, mesh = flags.config, flags.mode, flags.config.mesh
  # one sequence at a time is not worth splitting over CPU devices
  alone = mode in ("count", "generate", "chat") and mesh.fsdp == mesh.sequence == mesh.tensor == 1
  processes = {name: flags[name].value for name in ("coordinator", "processes", "process", "patience")}
  platform.prepare(0 if alone else mesh.cpu_devices, **processes)
  if mode == "count":
    show_counts(flags, name)
    return DONE
  if mode == "train":
    trained = Run.from_config(config, flags.workdir)
    status = trained.train(from_step=flags["from-step"].value)
    if status == "stopped":
      print(f"stopped at step {trained.step}, saved; the same command goes on", file=sys.stderr)
      return STOPPED
    writes = tokenizer.has_text(trained.task) or tokenizer.has_file(trained.task)
    if trained.config.generate.tokens and writes and jax.process_count() == 1:
      show_sample(trained)
    return DONE
  if mode == "generate":
    check_generate(flags)
  devices = jax.devices()[:1] if alone else None
  opened = Run.open(flags.workdir, step=flags.step, config=config, devices=devices)
  if mode == "eval":
    report_evaluation(opened)
  elif mode == "chat":
    with chat.as_chat():
      partner = opened.text_model.chat(**flags_lib.generate_changes(flags), **draft_of(flags))
    chat.talk(partner, sys.stdin, sys.stdout)
  else:
    generate(opened, flags)
  return DONE


def check_generate(flags: Any) -> None:
  """Raises a Mistake for what can be known to be wrong before the weights are read, which may take minutes."""
  changes, many = flags_lib.generate_changes(flags), flags_lib.completion_changes(flags)
  make_sampler(**{name: value for name, value in changes.items() if name in Sampler._fields})
  read_bias(changes.get("logit_bias", ()))
  sizes = {"temperature": flags.config.generate.temperature} | changes | many
  known = ("tokens", "temperature", "batch", "num_return_sequences", "num_beams", "num_speculative_tokens")
  completions.check_sizes(**{name: sizes[name] for name in known if name in sizes})
  if flags.prompts:
    completions.read_prompts(flags.prompts)
  if flags.out is not None:
    whole_file.check(flags.out)


def generate(opened: Run, flags: Any) -> None:
  """Writes what follows one prompt as it is drawn; or lines of JSON, where many are asked for."""
  changes, many = flags_lib.generate_changes(flags) | draft_of(flags), flags_lib.completion_changes(flags)
  if not many and not flags.prompts and not flags.out:
    opened.generate(out=sys.stdout, **changes)
    return
  prompt = changes.pop("prompt", opened.config.generate.prompt)
  records = completions.read_prompts(flags.prompts) if flags.prompts else [{"prompt": prompt}]
  found = opened.text_model.complete([record["prompt"] for record in records], **changes, **many)
  count = many.get("num_return_sequences", 1)
  completions.write_lines(flags.out, completions.joined(records, found, count))


def draft_of(flags: Any) -> dict[str, Any]:
  """Returns the model that --draft names, and its variables; nothing without it."""
  if flags.draft is None:
    return {}
  try:
    small = Run.open(flags.draft, devices=jax.devices()[:1])
  except Mistake as error:
    raise Mistake(str(error).replace("--workdir", "--draft")) from None
  return {"draft": (small.model, jax.device_get(small.variables))}


def show_sample(trained: Run) -> None:
  """Writes what --mode generate would. Training has succeeded even if this cannot."""
  print(f"step {trained.step} writes:", flush=True)
  try:
    trained.generate(out=sys.stdout)
  except (Mistake, FloatingPointError) as error:
    print(f"nothing: {error}")


def report_evaluation(opened: Run) -> None:
  """Prints the metrics and writes eval.json, with the data that they are of."""
  values, facts = opened.evaluate(), opened.task.describe()
  if jax.process_index() == 0 and opened.workdir:
    workdir_lib.write_json(opened.workdir / "eval.json", {"step": opened.step, "data": facts} | values)
    named = ("task", "files", "validation_files", "test_files", "validation_share")
    data = [f"{key} {facts[key]}" for key in named if facts.get(key)]
    print(
      "\n".join([", ".join([f"step {opened.step}", *data]), *(f"{name} {value:.6g}" for name, value in values.items())])
    )
  if bad := [name for name, value in values.items() if name.endswith("/loss") and not math.isfinite(value)]:
    raise FloatingPointError(f"{bad[0]} is not finite at step {opened.step}; its parameters or the data are not")


def fail(error: Exception, code: int, debug: bool) -> int:
  """Says why in one line; a reason that points at a place with a caret stays as it is."""
  if debug:
    traceback.print_exception(error)
  reason = str(error) if str(error).endswith("^") else " ".join(str(error).split())
  print(f"error: {reason}", file=sys.stderr)
  return code


if __name__ == "__main__":
  # grain's worker processes read absl's own flags
  absl_flags.FLAGS(sys.argv[:1])
  try:
    status = main(sys.argv)
  except Exception:
    if not peers.several():
      raise
    traceback.print_exc()
    status = 1
  status = terminal.exit_code(status, "error")
  if status not in (DONE, STOPPED) and peers.several():
    peers.leave(status)
  sys.exit(status)
