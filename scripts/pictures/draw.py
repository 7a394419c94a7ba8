"""Pages of pictures: one kind of picture for all layers that have it."""

from collections.abc import Callable, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.colors import LogNorm, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from scripts.pictures.save import save

WIDTH = 9.0  # inches, the width of a page
CHANNELS = 4
GREY = "0.6"


class View(NamedTuple):
  """One layer; what it does not have is None."""

  title: str
  tokens: list[str] | None
  scored: np.ndarray | None  # bool `t`: where an answer is asked for
  kernel: np.ndarray | None  # `t out in`
  poles: np.ndarray | None  # complex or real, any shape
  eigenvalues: np.ndarray | None  # `token … n`
  steps: np.ndarray | None  # `t e`
  attention: np.ndarray  # `t s`


def pages(runs: Sequence[Sequence[View]], folder: Path) -> list[Path]:
  """Draws each kind that any layer of any run has, and returns the files."""
  by_run = [view for views in runs for view in views]
  by_layer = [view for views in zip_longest(*runs) for view in views if view]
  # what draws a panel, the panels, how many stand in a row, and inches from row to row
  kinds: dict[str, tuple[Callable, list[View], int, float]] = {
    "kernel": (draw_kernel, by_run, 2, 2.6),
    "eigenvalues": (draw_eigenvalues, by_run, 2, 2.6),
    "steps": (draw_steps, by_run, 1, 2.0),
    "attention": (draw_attention, by_layer, 3 if len(runs) == 1 else min(len(runs), 4), 2.9),
  }
  files = []
  for name, (panel, views, across, height) in kinds.items():
    drawn = [view for view in views if getattr(view, name) is not None]
    if drawn:
      across = min(across, len(drawn))
      rows = -(-len(drawn) // across)
      figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
      for view, part in zip(drawn, np.ravel(figure.subfigures(rows, across, squeeze=False))):
        part.suptitle(view.title, fontsize=10)
        panel(part, view, getattr(view, name))
      files.append(folder / f"{name}.png")
      save(figure, files[-1], dpi=100)
  return files


def draw_kernel(part: Any, view: View, K: np.ndarray) -> None:
  """Draws the response of channels to an impulse in the same channel, for the channels of the largest kernels."""
  own = np.einsum("tcc->ct", K)
  axes = part.subplots()
  for channel in np.argsort(-np.square(own).sum(axis=1))[:CHANNELS]:
    axes.plot(own[channel], label=f"channel {channel}", marker=".", markersize=3, linewidth=1)
  axes.axhline(0, color=GREY, linewidth=0.5)
  axes.set(xlabel="lag / tokens", ylabel="kernel")
  axes.legend(fontsize=7)


def draw_eigenvalues(part: Any, view: View, eigenvalues: np.ndarray) -> None:
  """Draws left those of continuous time, if there are any; right the step's, in the unit disc or, if real, how many."""
  sets: list[tuple[str, Any, bool]] = [("\u03bb", view.poles, False), ("one step", eigenvalues, True)]
  drawn = [row for row in sets if row[1] is not None]
  for axes, (name, values, in_disc) in zip(np.ravel(part.subplots(1, len(drawn), squeeze=False)), drawn):
    values = np.ravel(values)
    axes.set_title(name, fontsize=9)
    if np.abs(values.imag).max() == 0:
      # Tustin's rule makes negative ones of large dt A
      ends = min(0.0, values.real.min()), max(1.0, values.real.max())
      many, _, _ = axes.hist(values.real, bins=np.linspace(*ends, 41) if in_disc else 40)
      axes.set(xlabel="eigenvalue", ylabel="how many", yscale="log" if max(many) > 20 else "linear")
      continue
    axes.plot(values.real, values.imag, ".", markersize=2, alpha=0.4)
    axes.set(xlabel="real part", ylabel="imaginary part")
    if in_disc:
      circle = np.exp(2j * np.pi * np.linspace(0, 1, 200))
      axes.plot(circle.real, circle.imag, color=GREY, linewidth=0.8)
      axes.set_aspect("equal")
    else:
      # LegS and Inv have a few that turn a hundred times faster than the rest
      axes.set_yscale("symlog", linthresh=10)


def draw_steps(part: Any, view: View, dt: np.ndarray) -> None:
  """Draws channels or heads from the shortest steps to the longest, by their medians; the colour is logarithmic."""
  axes = part.subplots()
  order = np.argsort(np.median(dt, axis=0))
  image = axes.imshow(dt[:, order].T, aspect="auto", origin="lower", norm=LogNorm(), interpolation="nearest")
  part.colorbar(image, ax=axes, label="dt", pad=0.01)
  axes.set(xlabel="token", ylabel="channel or head")
  axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
  if view.scored is not None and 0 < view.scored.sum() < len(dt):
    for edge in np.flatnonzero(np.diff(view.scored)):
      axes.axvline(edge + 0.5, color="white", linestyle="--", linewidth=1)
  if view.tokens is not None:
    shown = [t for t, token in enumerate(view.tokens) if t == 0 or token != view.tokens[t - 1]]
    rotation = 90 if max(map(len, view.tokens)) > 1 else 0
    axes.set_xticks(shown, [view.tokens[t] for t in shown], fontsize=7, rotation=rotation)


def draw_attention(part: Any, view: View, M: np.ndarray) -> None:
  """Draws the matrix, from 0 to its largest entry off the diagonal; the colour goes with the square root."""
  axes = part.subplots()
  largest = np.max(M - np.diag(np.diag(M)), initial=1e-30)
  image = axes.imshow(M, cmap="magma_r", norm=PowerNorm(0.5, 0, largest), interpolation="nearest")
  axes.set(xlabel="input s", ylabel="output t")
  part.colorbar(image, ax=axes, shrink=0.8)
