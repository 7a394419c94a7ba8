"""Writes what a model has generated as a text, an image or sounds, one file a step."""

import io
import math
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from training.workdir import write_text


@runtime_checkable
class Form(Protocol):
  """The kind of file that samples are written as."""

  def write(self, folder: Path, step: int, prompt: np.ndarray, tokens: np.ndarray) -> None:
    """Writes samples "rows tokens" that follow the tokens `prompt`."""
    ...


class Text(NamedTuple):
  """One text file, the samples between lines of dashes."""

  decode: Callable[[np.ndarray], str | bytes]

  def write(self, folder: Path, step: int, prompt: np.ndarray, tokens: np.ndarray) -> None:
    """Writes one text file of all samples, each after the prompt."""
    texts = [self.decode(np.concatenate([prompt, row])) for row in tokens]
    plain = [text.decode(errors="replace") if isinstance(text, bytes) else text for text in texts]
    _write(folder, f"step_{step:08d}.txt", "\n--------\n".join(plain) + "\n")


class Image(NamedTuple):
  """One PNG with all images side by side; what is not drawn of an image stays black."""

  side: int
  channels: int

  def write(self, folder: Path, step: int, prompt: np.ndarray, tokens: np.ndarray) -> None:
    """Writes one PNG with all images side by side."""
    # matplotlib takes a second to import
    from matplotlib.image import imsave

    size = self.side * self.side * self.channels
    images = np.zeros((len(tokens), size), np.uint8)
    images[:, : tokens.shape[1]] = tokens[:, :size]
    across = math.ceil(len(tokens) ** 0.5)
    images = np.pad(images, ((0, -len(tokens) % across), (0, 0)))
    grid = images.reshape(-1, across, self.side, self.side, self.channels).swapaxes(1, 2)
    grid = grid.reshape(-1, across * self.side, self.channels)
    out = io.BytesIO()
    imsave(out, np.repeat(grid, 3, axis=2) if self.channels == 1 else grid, format="png")
    _write(folder, f"step_{step:08d}.png", out.getvalue())


class Sound(NamedTuple):
  """A .wav of 16 bits a sample for each row."""

  decode: Callable[[np.ndarray], np.ndarray]
  rate: int

  def write(self, folder: Path, step: int, prompt: np.ndarray, tokens: np.ndarray) -> None:
    """Writes one .wav file for each row."""
    for number, row in enumerate(tokens):
      out = io.BytesIO()
      with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(self.rate)
        file.writeframes((np.clip(self.decode(row), -1, 1) * 32767).astype("<i2").tobytes())
      _write(folder, f"step_{step:08d}_{number}.wav", out.getvalue())


def of_task(task: Any, rate: int) -> Form:
  """Returns the form of a task whose rows are images, which have a `side`, or sounds."""
  if hasattr(task, "side"):
    return Image(task.side, task.channels)
  return Sound(task.sound, rate)


def distinct(tokens: np.ndarray, size: int = 4) -> float:
  """Returns the share of all runs of `size` tokens that are different from one another."""
  runs = np.lib.stride_tricks.sliding_window_view(tokens, min(size, tokens.shape[1]), axis=1)
  runs = runs.reshape(-1, runs.shape[-1])
  return len(np.unique(runs, axis=0)) / len(runs)


def _write(folder: Path, name: str, content: str | bytes) -> None:
  folder.mkdir(parents=True, exist_ok=True)
  write_text(folder / name, content)
