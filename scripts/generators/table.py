"""Statistics of a sample beside what a definition says: rows of Markdown tables."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats


class Line(NamedTuple):
  """One statistic."""

  what: str
  defined: str
  drawn: str


class Table(NamedTuple):
  """The statistics of one generator, and what they are of."""

  title: str
  sample: str
  lines: list[Line]


def markdown(table: Table) -> str:
  """Returns the table in Markdown, under a heading."""
  rows = [f"| {' | '.join(line)} |" for line in table.lines]
  return "\n".join([f"### {table.title}", "", table.sample, "", "| what | defined | drawn |", "|---|---|---|", *rows])


def agreement(what: str, right: Iterable[bool]) -> Line:
  """Counts the rows in which something holds that must hold in all."""
  flags = [bool(flag) for flag in right]
  return Line(what, "all", f"{sum(flags):,} of {len(flags):,}")


def uniform(what: str, values: npt.ArrayLike, low: int, high: int) -> Line:
  """Compares independent whole numbers with the uniform law on low … high, by Pearson's test."""
  many = high - low + 1
  return law(what, np.asarray(values) - low, np.full(many, 1 / many), f"uniform on {low} … {high}")


def law(what: str, values: npt.ArrayLike, shares: np.ndarray, defined: str) -> Line:
  """Compares independent whole numbers from 0 on with the shares of a law, by Pearson's test."""
  flat = np.asarray(values).ravel()
  counts = np.bincount(np.maximum(flat, 0), minlength=len(shares))
  if flat.min() < 0 or len(counts) > len(shares):
    return Line(what, defined, "numbers outside of the law")
  # neighbours are put together until all are expected five times, as the test's law is that of many
  expected, seen, bins = 0.0, 0, []
  for share, count in zip(shares * flat.size, counts):
    expected, seen = expected + share, seen + count
    if expected >= 5:
      bins.append((expected, seen))
      expected, seen = 0.0, 0
  last = bins.pop()
  bins.append((last[0] + expected, last[1] + seen))
  wanted, got = np.array(bins).T
  p = stats.chisquare(got, wanted * got.sum() / wanted.sum()).pvalue
  return Line(what, defined, f"χ² of {flat.size:,} in {len(bins)} classes: p = {p:{'.2f' if p >= 0.01 else '.1g'}}")


def mean(what: str, values: npt.ArrayLike, defined: str, digits: int = 3) -> Line:
  """Gives the mean of independent numbers with its standard error."""
  flat = np.asarray(values, float).ravel()
  return Line(what, defined, f"{flat.mean():.{digits}f} ± {flat.std(ddof=1) / np.sqrt(flat.size):.{digits}f}")


def quantiles(what: str, values: npt.ArrayLike, shares: Sequence[float], defined: str) -> Line:
  """Gives the quantiles of a sample."""
  return Line(what, defined, " / ".join(f"{np.percentile(np.asarray(values), share):,.0f}" for share in shares))


def parts(what: str, values: npt.ArrayLike, many: int, defined: str) -> Line:
  """Gives the shares of the numbers 0 … many - 1, in per cent."""
  share = 100 * np.bincount(np.asarray(values).ravel(), minlength=many) / np.size(values)
  return Line(what, defined, " ".join(f"{part:.1f}" for part in share) + " %")
