"""The learning rate of each update.

All are optax's, but inverse_sqrt, which it does not have. All but one_cycle rise to `lr` on a line over `warmup`
updates, the first of which has lr/warmup and not 0. After that:

  constant      stays there.
  cosine        falls to final_lr·lr at `steps` on half a cosine, lr (1 + cos(pi x))/2. Loshchilov & Hutter 2017.
  linear        falls there on a line.
  wsd           stays, and falls there on a line over the last updates, `decay` of them (warmup, stable, decay). Hu et
                al. 2024 (MiniCPM), whose decay is exponential; Hägele et al. 2024 compare shapes. Until the decay
                begins the rate does not depend on `steps`, so a run is extended from there without a jump.
  one_cycle     rises from lr/25 on half a cosine over `warmup` updates, 0.3 of all where that is 0, and falls to
                final_lr·lr, at least lr/250,000, on another. Smith & Topin 2018; optax's cosine_onecycle_schedule.
  inverse_sqrt  falls as lr sqrt(warmup/n) at update n, but not below final_lr·lr. Vaswani et al. 2017. It does not
                depend on `steps`.

Past `steps` the rate of cosine, linear, one_cycle and wsd stays where it is then.
"""

import inspect
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from mistake import Mistake

Section: TypeAlias = Mapping[str, Any] | ConfigDict
# name -> one line for `--list schedules`; the module's docstring says more
SCHEDULES = {
  "constant": "stays at lr after the warm-up",
  "cosine": "falls to final_lr·lr at the last step on half a cosine (Loshchilov & Hutter 2017)",
  "linear": "falls there on a line",
  "wsd": "stays, and falls on a line over the last `decay` updates (Hu et al. 2024)",
  "one_cycle": "rises from lr/25 and falls to at least lr/250,000, on half cosines (Smith & Topin 2018)",
  "inverse_sqrt": "falls as lr sqrt(warmup/n) at update n (Vaswani et al. 2017)",
}
# whose rate depends on `steps`
DRAWN = ("cosine", "linear", "one_cycle")


def learning_rate(
  *,
  steps: int,
  lr: float = 1e-3,
  schedule: str = "cosine",
  warmup: int = 0,
  final_lr: float = 0.0,
  decay: float = 0.1,
) -> optax.Schedule:
  """Returns the function from the number of updates done to the learning rate of the next; see the module's docstring.

  Args:
    steps: updates of the whole run.
    final_lr: as a fraction of `lr`.
    decay: of wsd; a share of `steps` where it is below 1, otherwise a number of updates.
  Raises:
    Mistake: an unknown schedule, or a value out of its range.
  """
  _check(steps, lr, schedule, warmup, final_lr, decay)
  falls_from, low, left = decays_from(steps, decay), final_lr * lr, max(steps - warmup, 1)
  if schedule == "one_cycle":
    share, floor = (warmup / steps if warmup and steps else 0.3), max(final_lr, 1 / 250_000)
    return optax.cosine_onecycle_schedule(max(steps, 1), lr, share, div_factor=25.0, final_div_factor=1 / (25 * floor))
  after: optax.Schedule = {
    "constant": lambda: optax.constant_schedule(lr),
    "cosine": lambda: optax.cosine_decay_schedule(lr, left, alpha=final_lr),
    "linear": lambda: optax.linear_schedule(lr, low, left),
    "wsd": lambda: optax.linear_schedule(lr, low, max(steps - falls_from, 1), transition_begin=falls_from - warmup),
    "inverse_sqrt": lambda: _inverse_sqrt(lr, max(warmup, 1), final_lr),
  }[schedule]()
  rise = optax.linear_schedule(lr / max(warmup, 1), lr, warmup - 1)
  rate = optax.join_schedules([rise, after], [warmup]) if warmup else after
  return lambda count: jnp.asarray(rate(count), jnp.float32)


def _inverse_sqrt(lr: float, warmup: int, least: float) -> optax.Schedule:
  # before the warm-up is over, the count is below 0, and nobody looks
  return lambda count: lr * jnp.maximum((1 + jnp.maximum(count, 0) / warmup) ** -0.5, least)


# the settings of the optimizer section that `learning_rate` takes
RATE = tuple(name for name in inspect.signature(learning_rate).parameters if name != "steps")


def of(section: Section, steps: int) -> optax.Schedule:
  """Returns the learning rate of a config's optimizer section."""
  return learning_rate(steps=steps, **{name: section[name] for name in RATE if name in section})


def decays_from(steps: int, decay: float) -> int:
  """Returns the number of updates after which the decay of wsd begins."""
  return steps - (max(round(decay * steps), 1) if decay < 1 else int(decay))


def turn(section: Section, steps: int) -> int:
  """Returns the step from which another length of the run changes the rates; 0 is never.

  A checkpoint of it lets the run be extended without decaying twice.
  """
  return decays_from(steps, _decay(section)) if section.get("schedule") == "wsd" and steps else 0


def extended(section: Section, before: int, steps: int, done: int) -> str:
  """Returns what another number of `steps` does to the rates of a run at step `done`; empty where it is nothing.

  At step 0, as after `interop.hf load`, there was no rate before.
  """
  kind = section.get("schedule", "cosine")
  start = f"steps was {before} and is {steps}: "
  if before == steps or not done or kind not in (*DRAWN, "wsd"):
    return ""
  if kind in DRAWN:
    return (
      f"{start}the {kind} schedule is drawn anew over all of them, so the learning rate jumps; "
      "optimizer.schedule=wsd from the start avoids that (or constant, inverse_sqrt)"
    )
  old, new = (decays_from(number, _decay(section)) for number in (before, steps))
  if done <= min(old, new):
    return f"{start}the wsd schedule decays from step {new} on, and up to there the learning rate is what it was"
  return (
    f"{start}this run, at step {done}, decays since step {min(old, new)}, and its learning rate jumps; --from-step "
    f"with a checkpoint of step {min(old, new)} or before goes on as if steps had always been {steps}"
  )


def _decay(section: Section) -> float:
  return section.get("decay", inspect.signature(learning_rate).parameters["decay"].default)


def _check(steps: int, lr: float, schedule: str, warmup: int, final_lr: float, decay: float) -> None:
  if schedule not in SCHEDULES:
    raise Mistake(f"optimizer.schedule={schedule!r}; choose one of {', '.join(SCHEDULES)}")
  shares = "a share of steps below 1, or a whole number of updates"
  for key, value, fine, need in (
    ("steps", steps, steps >= 0, "0 or more updates"),
    ("optimizer.lr", lr, 0 <= lr < math.inf, "a finite number of 0 or more"),
    ("optimizer.warmup", warmup, warmup >= 0, "0 (off) or more updates"),
    ("optimizer.final_lr", final_lr, 0 <= final_lr <= 1, "a fraction of optimizer.lr, 0 to 1"),
    ("optimizer.decay", decay, 0 < decay < 1 or (1 <= decay < math.inf and decay == int(decay)), shares),
  ):
    if not fine:
      raise Mistake(f"{key}={value}; it must be {need}")
  if warmup >= steps > 0:
    raise Mistake(
      f"optimizer.warmup={warmup} is not below steps={steps}, so that the learning rate would never reach "
      f"optimizer.lr; set warmup={steps // 10} or more steps"
    )
  if schedule == "wsd" and 0 < steps < warmup + steps - decays_from(steps, decay):
    raise Mistake(
      f"optimizer.warmup={warmup} and optimizer.decay={decay:g} do not fit into steps={steps}; lower one of them, or "
      "set more steps"
    )
