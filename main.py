"""Trains, evaluates, samples or counts the model of a config.

  python main.py --config configs/NAME.py[:key=value,...] [--config.KEY=VALUE ...] --workdir DIR [--mode MODE]

  --mode train      trains to config.steps; the same command goes on where the run in DIR was. The default.
  --mode eval       evaluates the newest checkpoint, or --step N, and writes eval.json.
  --mode generate   continues --prompt by --tokens; --temperature, --top_k, --top_p, --seed.
  --mode count      parameters, state, operations and memory, without allocating any.

--config may be left out where DIR holds a run. DIR holds config.json, data.json, metrics.jsonl, loss.png, tensorboard/,
checkpoints/ and, at the end, summary.json.

Exit codes: 0 done; 1 a bug, with a traceback; 2 a mistake in what was asked for, in one line (--debug shows where);
3 the loss or its gradient was not finite, nothing after it was saved; 75 stopped by SIGTERM or Ctrl-C and saved: the
same command goes on; 130 a Ctrl-C outside of training, or a second one: not saved.
"""

import contextlib
import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags as absl_flags
from rich.console import Console

from data.task import build_task
from hybrids.model import build_model
from inference import count, stream
from kernels import dispatch
from mistake import Mistake
from training import flags as flags_lib
from training import flops, metrics, optimizer, platform, sharding
from training import state as state_lib
from training import step as step_lib
from training import workdir as workdir_lib
from training.checkpoint import Checkpoints, Restored
from training.evaluate import make_evaluate

DONE, MISTAKE, NOT_FINITE, STOPPED, INTERRUPTED = 0, 2, 3, 75, 130


def main(argv: Sequence[str]) -> int:
  """Does what the arguments ask for, and returns the exit code."""
  debug = "--debug" in argv
  try:
    flags = flags_lib.parse(argv)
    if flags.help:
      print(f"{__doc__}\n{flags_lib.usage(flags)}")
      return DONE
    return run(flags)
  except KeyboardInterrupt:
    return INTERRUPTED
  except FloatingPointError as error:
    return fail(error, NOT_FINITE, debug)
  except (Mistake, TypeError, OSError) as error:
    if not is_mistake(error):
      raise
    return fail(error, MISTAKE, debug)


def run(flags: Any) -> int:
  """Builds what the config names, and does what --mode says."""
  config, mode = flags.config, flags.mode
  # one sequence at a time is not worth splitting over CPU devices
  alone = mode in ("count", "generate") and config.mesh.fsdp == config.mesh.sequence == config.mesh.tensor == 1
  mesh_section = config.mesh.to_dict()
  cpu_devices = mesh_section.pop("cpu_devices")
  processes = {name: flags[name].value for name in ("coordinator", "processes", "process")}
  platform.prepare(0 if alone else cpu_devices, **processes)
  if config.kernels != "auto":
    # "auto" leaves KERNEL_IMPL in force
    dispatch.force(config.kernels)
  task = build_task(**config.data.to_dict())
  model = build_model(task, **config.model.to_dict())
  # built in every mode: a bad setting is found before anything is computed, and a checkpoint holds its state too
  shapes = state_lib.variables_shape(model, task)
  tx = optimizer.build(shapes["params"], model.SLOW, steps=config.steps, **config.optimizer.to_dict())
  if mode == "count":
    Console().print(count.table(count.count(model, task, tx=tx)))
    return DONE
  workdir = Path(flags.workdir)
  mesh = sharding.make_mesh(**mesh_section, devices=jax.devices()[:1] if alone else None)
  sharding.check_batch(task.batch, task.length, mesh)
  workdir_lib.check_config(workdir, config)
  stateful = state_lib.carries(model, stateful=task.stateful)
  with sharding.active(mesh):
    init, like = state_lib.blueprint(model, task, tx, mesh, stateful=stateful)
    evaluate = make_evaluate(model, task, mesh, chunk=config.eval.chunk, batches=config.eval.batches)
    if mode == "train":
      update = step_lib.make_update(model, tx, like=like)
      costs = {
        "parameters": state_lib.count(like.params),
        "flops_per_token": flops.per_token(model, like.variables, state_lib.example(task, task.batch)),
        "state_bytes": None if model.STATE == "none" else count.state_bytes(model, task.length),
      }
      code, state = train(config, workdir, task, mesh, init, like, update, evaluate, costs)
    else:
      found = restore(workdir, like, flags.step)
      code, state = DONE, found.state
    if mode == "eval":
      report_evaluation(workdir, found.step, evaluate(state.variables))
    if mode == "generate":
      stream.write(model, state.variables, task, **flags_lib.generate_section(config, flags))
  if mode == "train" and code == DONE and config.generate.tokens and stream.has_text(task) and jax.process_count() == 1:
    show_sample(config, model, task, state.variables)
  return code


def show_sample(config: Any, model: Any, task: Any, variables: Any) -> None:
  """What --mode generate would write, at the end of training. Training has succeeded even if this cannot."""
  print(f"step {config.steps} writes:", flush=True)
  try:
    # off the mesh: one sequence is not worth splitting
    stream.write(model, jax.device_get(variables), task, **config.generate.to_dict())
  except (Mistake, FloatingPointError) as error:
    print(f"nothing: {error}")


def train(
  config: Any, workdir: Path, task: Any, mesh: Any, init: Any, like: Any, update: Any, evaluate: Any, costs: Any
) -> tuple[int, state_lib.TrainState]:
  """Opens the folder, takes the newest checkpoint or a fresh state, and leaves a summary however it ends.

  Args:
    costs: facts about the model for the summary.
  Returns:
    the exit code, and the state training ended with.
  """
  batches = task.train(jax.process_index(), jax.process_count())
  # model and data are tried on each other before the folder is written: what does not fit is found here
  start = batches.get_state()
  jax.eval_shape(update, like, sharding.put(next(batches), mesh))
  batches.set_state(start)
  wandb = metrics.find_wandb(config.wandb)
  open_workdir(workdir, config, task)
  with contextlib.closing(Checkpoints(workdir / "checkpoints", keep=config.save.keep or None)) as checkpoints:
    found = checkpoints.restore(like)
    record: dict[str, Any] = {"step": 0, "evaluated": -1, "seconds": 0.0, "last": {}, "best": {}}
    if found:
      batches.set_state(found.data_state)
      record |= found.extra
    state = found.state if found else init(config.seed)
    where = f"going on at step {record['step']}" if found else "starting"
    writer = metrics.Writer(workdir, first=record["step"], steps=config.steps, config=config.to_dict(), wandb=wandb)
    writer.say(
      f"{where} of {config.steps}: {costs['parameters']:,} parameters, {mesh.size} x {jax.devices()[0].device_kind}"
    )
    clock = metrics.Clock(record["seconds"], tokens=task.batch * task.length, flops=costs["flops_per_token"])
    status = "failed"
    try:
      status, state = fit(config, task, mesh, state, batches, record, update, evaluate, checkpoints, writer, clock)
    finally:
      writer.close()
      summarize(workdir, {"status": status, "steps": config.steps} | costs, record)
  if status == "stopped":
    print(f"stopped at step {record['step']}, saved; the same command goes on", file=sys.stderr)
  return STOPPED if status == "stopped" else DONE, state


def fit(
  config: Any,
  task: Any,
  mesh: Any,
  state: state_lib.TrainState,
  batches: Any,
  record: dict[str, Any],
  update: Any,
  evaluate: Any,
  checkpoints: Checkpoints,
  writer: metrics.Writer,
  clock: metrics.Clock,
) -> tuple[str, state_lib.TrainState]:
  """The loop, from the state's step to config.steps or until a signal: "done" or "stopped", and the state."""
  first, last = record["step"], config.steps
  rate = optimizer.learning_rate(steps=last, **{k: config.optimizer[k] for k in optimizer.RATE})
  forget = step_lib.make_forget(like=state)
  with platform.stop_requests() as asked_to_stop:
    for step in range(first, last + 1):
      # Evaluate the state as it is, save it with the position in the data, only then take the next batch: so a resumed
      # run sees every batch once. Whoever asks to stop may not wait for an evaluation: the resumed run does that.
      stop = step < last and asked_to_stop(step)
      if due(step, config.eval.every, last) and record["evaluated"] < step and not stop:
        step_lib.check_finite(state.seen)
        with clock.pause(state):
          row = evaluate(state.variables)
        record["best"] = metrics.better(record["best"], step, row)
        record["last"] |= row
        record["evaluated"] = step
        writer.log(step, row)
      record |= {"step": step, "seconds": clock.seconds}
      if step > first and (stop or due(step, config.save.every, last)):
        step_lib.check_finite(state.seen)
        with clock.pause(state):
          checkpoints.save(step, state, data_state=batches.get_state(), extra=record)
      if stop:
        return "stopped", state
      if step == last:
        break
      state = update(state, sharding.put(next(batches), mesh))
      clock.tick(step, first=first, work=state)
      writer.tick(step + 1)
      if due(step + 1, config.log_every, last):
        row = step_lib.report(state.seen, task.metrics) | {"train/lr": float(rate(step))} | clock.lap()
        record["last"] |= row
        writer.log(step + 1, row, left=(last - step - 1) * clock.per_step)
        state = state._replace(seen=forget())
  return "done", state


def due(step: int, every: int, last: int) -> bool:
  """Every so many steps, and at the end; 0 is at the end alone."""
  return step == last or (every > 0 and step % every == 0)


def open_workdir(workdir: Path, config: Any, task: Any) -> None:
  """Writes down what the run is. Data that cannot be read is found here, while the folder is as it was."""
  facts = task.describe()
  if jax.process_index() == 0:
    workdir_lib.warn_of_other_data(workdir, facts)
    workdir.mkdir(parents=True, exist_ok=True)
    workdir_lib.write_json(workdir / workdir_lib.CONFIG, json.loads(config.to_json()))
    workdir_lib.write_json(workdir / workdir_lib.DATA, facts)


def summarize(workdir: Path, facts: dict[str, Any], record: dict[str, Any]) -> None:
  """Writes summary.json."""
  if jax.process_index() == 0:
    numbers = {"step": record["step"], "wall_seconds": record["seconds"], "metrics": record["last"]}
    numbers |= {"best": record["best"]}
    workdir_lib.write_json(workdir / metrics.SUMMARY, facts | numbers | metrics.surroundings())


def restore(workdir: Path, like: state_lib.TrainState, step: int | None) -> Restored:
  """A checkpoint to look at.

  Raises:
    ValueError: there is none.
  """
  if workdir_lib.read_config(workdir) is None:
    raise Mistake(f"{workdir} holds no run: it has no {workdir_lib.CONFIG}; train first, or give another --workdir")
  with contextlib.closing(Checkpoints(workdir / "checkpoints", read_only=True)) as checkpoints:
    found = checkpoints.restore(like, step)
  if found is None:
    raise Mistake(f"{workdir}/checkpoints holds no checkpoint to use; train first, or give another --workdir")
  return found


def report_evaluation(workdir: Path, step: int, values: dict[str, float]) -> None:
  """Prints the numbers and writes eval.json."""
  if jax.process_index() == 0:
    workdir_lib.write_json(workdir / "eval.json", {"step": step} | values)
    print("\n".join([f"step {step}", *(f"{name} {value:.6g}" for name, value in values.items())]))


def is_mistake(error: Exception) -> bool:
  """Whether an error is about what was asked for or a file that cannot be used, and not a bug."""
  if isinstance(error, TypeError):
    # a config section with a key that what it names does not take
    last = traceback.extract_tb(error.__traceback__)[-1].filename
    return Path(last) == Path(__file__) and "unexpected keyword argument" in str(error)
  return isinstance(error, Mistake) or (isinstance(error, OSError) and error.filename is not None)


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
  sys.exit(main(sys.argv))
