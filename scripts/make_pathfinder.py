"""Draws Pathfinder's images into files that data.dir=FOLDER reads, or a sheet of samples to look at.

  ./dev pathfinder --side 32 --out FOLDER [--train 160000] [--held-out 20000] [--contour 14] [--seed 0] [--jobs 2]
  ./dev pathfinder --side 128 --sheet samples.png

Files have a thousand images each; those that are there are kept, so that the same command goes on where it was stopped.
A sheet has the first 64 images of each label, label 1 (both discs on one curve) at the left.
"""

import argparse
import functools
import os
import sys
import time
from pathlib import Path

import numpy as np

import ending
from arguments import Parser, at_least
from data import pathfinder, snakes
from data.generated import EVAL_SEED
from inference import whole_file
from mistake import Mistake
from scripts.workers import spread

# samples of a label on a sheet, and in a row of it
SAMPLES, ACROSS = 64, 8


def make_shard(folder: Path, job: tuple[int, str, int, int, int]) -> int:
  """Draws the images of one file and returns how many there are."""
  seed, split, shard, side, contour = job
  path = folder / pathfinder.shard_name(*job)
  rows = range(shard * pathfinder.SHARD, (shard + 1) * pathfinder.SHARD)
  images = np.stack([pathfinder.drawn(seed, split, row, side, contour) for row in rows])
  with ending.unfinished(path) as partial, partial.open("wb") as file:
    np.save(file, images)
  return len(images)


def make(args: argparse.Namespace) -> None:
  """Draws all files that are missing, and says how fast it is."""
  args.out.mkdir(parents=True, exist_ok=True)
  held_out = [(EVAL_SEED, split, args.held_out) for split in pathfinder.SPLITS[1:]]
  jobs = [
    (seed, split, shard, args.side, args.contour)
    for seed, split, images in [(args.seed, "train", args.train), *held_out]
    for shard in range(-(-images // pathfinder.SHARD))
  ]
  jobs = [job for job in jobs if not (args.out / pathfinder.shard_name(*job)).exists()]
  print(f"{len(jobs)} files of {pathfinder.SHARD} images are missing in {args.out}")
  began, done = time.monotonic(), 0
  for images in spread(functools.partial(make_shard, args.out), jobs, args.jobs):
    done += images
    seconds = time.monotonic() - began
    left = (len(jobs) * pathfinder.SHARD - done) * seconds / done
    print(f"{done} images in {seconds:.0f} s, {left:.0f} s left", flush=True)


def sheet(side: int, contour: int, seed: int) -> np.ndarray:
  """Draws the first images of each label side by side: uint8 pixels."""
  samples: dict[int, list[np.ndarray]] = {1: [], 0: []}
  row = 0
  while min(map(len, samples.values())) < SAMPLES:
    drawing = snakes.draw(seed, f"train/{side}/{contour}", row, side, contour)
    samples[drawing.label].append(np.pad(drawing.image, 1, constant_values=96))
    row += 1
  tile = side + 2
  halves = [
    np.stack(images[:SAMPLES]).reshape(SAMPLES // ACROSS, ACROSS, tile, tile).swapaxes(1, 2).reshape(-1, ACROSS * tile)
    for images in samples.values()
  ]
  gap = np.full((len(halves[0]), tile // 2), 255, np.uint8)
  return np.concatenate([halves[0], gap, halves[1]], axis=1)


def main(argv: list[str] | None = None) -> int:
  """Draws what is asked for. Exit code: 0, or 2 for wrong arguments."""
  parser = Parser(prog="pathfinder", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("--side", type=int, default=32, choices=list(snakes.LEVELS), help="pixels of each side")
  parser.add_argument("--contour", type=int, default=14, choices=snakes.CONTOURS, help="paddles of the long curves")
  parser.add_argument("--seed", type=at_least(0), default=0, help="of the training images")
  parser.add_argument("--train", type=int, default=160_000, help="training images")
  parser.add_argument("--held-out", type=int, default=20_000, help="images of validation, and as many of the test")
  parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
  parser.add_argument("--out", type=Path, help="folder of the files")
  parser.add_argument("--sheet", type=Path, help="PNG file of samples")
  args = parser.parse_args(argv)
  try:
    if args.jobs < 1 or min(args.train, args.held_out) < 0:
      raise Mistake(f"--jobs={args.jobs}, --train={args.train}, --held-out={args.held_out}: at least 1, 0 and 0")
    if not (args.out or args.sheet):
      raise Mistake("nothing to do: give --out FOLDER for files or --sheet FILE.png for samples")
    if args.sheet and args.sheet.suffix.lower() not in ("", ".png"):
      raise Mistake(f"--sheet={args.sheet}: give a file that ends in .png")
    if args.sheet:
      from PIL import Image

      with whole_file.writing(args.sheet, binary=True) as file:
        # a byte a pixel
        Image.fromarray(sheet(args.side, args.contour, args.seed)).save(file, format="png", optimize=True)
      print(args.sheet)
    if args.out:
      make(args)
  except (Mistake, OSError) as error:
    print(f"pathfinder: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
