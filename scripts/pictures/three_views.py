"""Draws one S4 three times: as the solution of its ODE, as a recurrence and as a convolution.

  python scripts/pictures/three_views.py --out three_views.png

One channel, LegS with 8 states, dt = 0.025, fresh parameters, D = 0. The ODE x' = A x + B u, y = C x is solved in
float64 with the dense A by Runge and Kutta, 16 steps a token; its input is held over each token. The recurrence is the
mixer's `step` and the convolution its `__call__`, in float32 and by Tustin's rule, which is what differs.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from matplotlib.figure import Figure

from scripts.pictures.save import save
from ssm.lti.s4 import S4

TOKENS, FINE, DT = 80, 16, 0.025


class Views(NamedTuple):
  """Inputs and what the three views make of them; fine ones have FINE values a token."""

  u: np.ndarray
  taps: np.ndarray  # K_l: the convolution's answer to one impulse
  response: np.ndarray  # dt C exp(tau A) B, fine: the ODE's
  convolution: np.ndarray
  recurrence: np.ndarray
  ode: np.ndarray  # fine, at the end of each of its steps


def views() -> Views:
  """Computes all of them."""
  module = S4(width=1, state=8, dt_min=DT, dt_max=DT, activation="none")
  p = dict(nn.meta.unbox(module.init(jax.random.key(0), jnp.zeros((1, 1, 1))))["params"]) | {"D": jnp.zeros(1)}
  variables = {"params": p}
  time = np.arange(TOKENS)
  u = np.sin(time / 8) + 0.5 * np.sin(time / 2.5)
  apply: Any = jax.jit(module.apply)
  convolve = lambda x: np.asarray(apply(variables, jnp.asarray(x, jnp.float32)[None, :, None]))[0, :, 0]
  step: Any = jax.jit(lambda x, state: module.apply(variables, x, state, method="step"))
  state, recurrence = module.init_state(1, TOKENS), []
  for value in u:
    y, state = step(jnp.full((1, 1), value, jnp.float32), state)
    recurrence.append(float(y[0, 0]))
  A, B, C = dense({name: np.asarray(value, float) for name, value in p.items()})
  no_input = np.zeros(TOKENS)
  return Views(
    u=u,
    taps=convolve(time == 0),
    response=DT * solve(A, B, C, no_input, x=B),
    convolution=convolve(u),
    recurrence=np.array(recurrence),
    ode=solve(A, B, C, u, x=0 * B),
  )


def dense(p: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns A = diag(lam) - P P*, B and C of the only channel, conjugate pairs written out."""
  pairs = lambda re, im: np.concatenate([re[0] + 1j * im[0], re[0] - 1j * im[0]])
  lam, P = pairs(-np.exp(p["A_log"]), p["A_im"]), pairs(p["P_re"], p["P_im"])
  return np.diag(lam) - np.outer(P, P.conj()), pairs(p["B_re"], p["B_im"]), pairs(p["C_re"], p["C_im"])


def solve(A: np.ndarray, B: np.ndarray, C: np.ndarray, u: np.ndarray, x: np.ndarray) -> np.ndarray:
  """Computes y = C x after every fine step of x' = A x + B u from x, with u held over each token."""
  s, y = DT / FINE, []
  for value in np.repeat(u, FINE):
    slope = lambda z: A @ z + B * value  # noqa: B023
    k1 = slope(x)
    k2 = slope(x + s / 2 * k1)
    k3 = slope(x + s / 2 * k2)
    x = x + s / 6 * (k1 + 2 * k2 + 2 * k3 + slope(x + s * k3))
    y.append((C @ x).real)
  return np.array(y)


def gaps(views: Views) -> dict[str, float]:
  """Returns the largest differences between the views, relative to the largest output."""
  scale = np.abs(views.convolution).max()
  gap = lambda other: float(np.abs(other - views.convolution).max() / scale)
  return {"recurrence": gap(views.recurrence), "ode": gap(views.ode[FINE - 1 :: FINE])}


def draw(views: Views, path: Path) -> None:
  """Draws left the kernel, right an output."""
  figure = Figure(figsize=(9, 3.6), layout="constrained")
  left, right = figure.subplots(1, 2, width_ratios=(2, 3))
  fine = (np.arange(TOKENS * FINE) + 1) / FINE
  # a tap answers for the whole token, and so stands at its middle
  left.plot(fine, views.response, color="0.3", linewidth=1.2, label="ODE: dt C exp(\u03c4 A) B")
  left.plot(np.arange(TOKENS) + 0.5, views.taps, "x", color="C0", markersize=5, label="convolution: taps")
  left.set(title="kernel", xlabel="lag \u03c4 / tokens", ylabel="answer to an impulse")
  right.step(np.arange(TOKENS + 1), np.append(views.u, views.u[-1]), where="post", color="0.8", label="input u")
  right.plot(fine, views.ode, color="0.3", linewidth=1.2, label="ODE")
  at_end = np.arange(TOKENS) + 1
  right.plot(at_end, views.recurrence, "o", color="C1", markersize=7, fillstyle="none", label="recurrence")
  right.plot(at_end, views.convolution, "x", color="C0", markersize=5, label="convolution")
  right.set(title="output", xlabel="time / tokens", ylabel="u, y")
  # room for the legend above the curves
  right.set_ylim(top=1.4 * right.get_ylim()[1])
  left.legend(fontsize=8, loc="lower right")
  right.legend(fontsize=8, loc="upper right", ncols=2)
  for axes in (left, right):
    axes.grid(alpha=0.2)
  save(figure, path, dpi=100)


def main(argv: list[str] | None = None) -> int:
  """Draws, and prints the gaps. Exit code: 0."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--out", type=Path, required=True, help="the picture, .png")
  args = parser.parse_args(argv)
  found = views()
  draw(found, args.out)
  for name, gap in gaps(found).items():
    print(f"{name}: within {gap:.2g} of the convolution, relative to its largest output")
  return 0


if __name__ == "__main__":
  sys.exit(main())
