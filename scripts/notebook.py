"""Runs the notebooks of notebooks/ and writes each with its outputs as a page of the documentation.

  ./dev notebooks [NAME ...] [--out docs/notebooks] [--small]

A notebook is a Python file in jupytext's percent format, so that Jupyter opens it as well: `# %%` begins a cell of
code, `# %% [markdown]` one of text, whose lines are comments. A page has the text, the code, what the code printed, the
value of a last line that is an expression, and every figure of pyplot as a picture NAME_1.png, NAME_2.png … Code of a
cell `# %% tags=["hide-input"]` is folded. --small runs at the sizes of the tests, which the notebooks choose when
NOTEBOOK_SMALL is set.
"""

import argparse
import ast
import contextlib
import io
import os
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from arguments import Parser
from mistake import Mistake
from training.run import Run

FOLDER = Path(__file__).parents[1] / "notebooks"
PAGES = Path(__file__).parents[1] / "docs" / "notebooks"
SMALL = "NOTEBOOK_SMALL"
MARK = "# %%"


class Cell(NamedTuple):
  """A cell: whether it is text, whether its code is folded, its first line in the file, and its source."""

  is_text: bool
  is_folded: bool
  line: int
  source: str


class Output(NamedTuple):
  """Holds what a cell has shown: text, and pyplot's figures as PNG, each with its titles."""

  text: str
  figures: list[tuple[str, bytes]]


def cells(text: str) -> list[Cell]:
  """Cuts a file in percent format into cells; what stands before the first mark is no cell."""
  lines = text.splitlines()
  starts = [i for i, line in enumerate(lines) if line.startswith(MARK)]
  found = []
  for start, end in zip(starts, [*starts[1:], len(lines)]):
    head, is_text = lines[start], "[markdown]" in lines[start]
    body = lines[start + 1 : end]
    source = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body) if is_text else "\n".join(body)
    found.append(Cell(is_text, "hide-input" in head, start + 2, source.strip("\n")))
  return found


def run(path: Path, *, small: bool) -> Iterator[tuple[Cell, Output]]:
  """Runs a notebook cell by cell, and yields each with what it has shown."""
  import matplotlib

  matplotlib.use("Agg")
  # classes that are defined in a cell belong to a module that can be found
  module = types.ModuleType(f"notebooks.{path.stem}")
  sys.modules[module.__name__] = module
  before = os.environ.pop(SMALL, None)
  if small:
    os.environ[SMALL] = "1"
  try:
    for cell in cells(path.read_text()):
      yield cell, Output("", []) if cell.is_text else _execute(cell, module, path)
  finally:
    os.environ.pop(SMALL, None)
    if before is not None:
      os.environ[SMALL] = before


def _execute(cell: Cell, module: types.ModuleType, path: Path) -> Output:
  """Runs the code of one cell; tracebacks name the file and its lines."""
  # blank lines in front of it, as many as stand before it in the file
  tree = ast.parse("\n" * (cell.line - 1) + cell.source, filename=str(path))
  last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
  shown = io.StringIO()
  with contextlib.redirect_stdout(shown):
    exec(compile(tree, str(path), "exec"), module.__dict__)
    if isinstance(last, ast.Expr):
      value = eval(compile(ast.Expression(last.value), str(path), "eval"), module.__dict__)
      if value is not None and not _drawn(value):
        print(value)
  return Output(shown.getvalue().rstrip(), list(_figures()))


def _drawn(value: Any) -> bool:
  """Tells if a value is what a line that draws returns: something of pyplot's, or a list of such."""
  values = value if isinstance(value, (list, tuple)) and value else [value]
  return all(type(each).__module__.startswith("matplotlib") for each in values)


def _figures() -> Iterator[tuple[str, bytes]]:
  """Yields pyplot's open figures, and closes them."""
  from matplotlib import pyplot

  for number in pyplot.get_fignums():
    figure: Any = pyplot.figure(number)
    titles = [axes.get_title() for axes in figure.axes]
    picture = io.BytesIO()
    figure.savefig(picture, dpi=90)
    pyplot.close(figure)
    yield "; ".join(filter(None, titles)), picture.getvalue()


def trained(config: Any) -> Run:
  """Trains a run in memory for a notebook, without the lines that a run prints; see `Run.from_config`."""
  run = Run.from_config(config)
  with contextlib.redirect_stdout(io.StringIO()):
    status = run.train()
  if status == "stopped":
    # a signal asked the run to save and end, and means the notebook
    raise KeyboardInterrupt
  return run


def write(path: Path, folder: Path, *, small: bool) -> Path:
  """Runs a notebook and writes NAME.md and its pictures into a folder; returns the page."""
  parts: list[str] = []
  pictures: list[tuple[str, bytes]] = []
  for cell, output in run(path, small=small):
    print(f"{path.name}:{cell.line}", file=sys.stderr)
    if cell.is_text:
      parts.append(cell.source)
      continue
    code = f"```python\n{cell.source}\n```"
    parts.append(_folded(code) if cell.is_folded else code)
    if output.text:
      parts.append(f"```text\n{output.text}\n```")
    for titles, picture in output.figures:
      pictures.append((f"{path.stem}_{len(pictures) + 1}.png", picture))
      parts.append(f"![{titles or 'figure'}]({pictures[-1][0]})")
  folder.mkdir(parents=True, exist_ok=True)
  for old in folder.glob(f"{path.stem}_*.png"):
    old.unlink()
  for name, picture in pictures:
    (folder / name).write_bytes(picture)
  page = folder / f"{path.stem}.md"
  source = f"*Written by `./dev notebooks {path.stem}` from `notebooks/{path.name}`, which Jupyter opens, too.*"
  title, _, rest = parts[0].partition("\n")
  page.write_text("\n\n".join([title, source, rest.strip("\n"), *parts[1:]]) + "\n")
  return page


def _folded(code: str) -> str:
  return f'<details markdown="1"><summary>code</summary>\n\n{code}\n\n</details>'


def main(argv: list[str] | None = None) -> int:
  """Writes the pages. Exit code: 0, or 2 for a mistake in what was asked for."""
  parser = Parser(prog="notebooks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("names", nargs="*", metavar="NAME", help="of a notebook; all without any")
  parser.add_argument("--out", type=Path, default=PAGES, help="folder for the pages")
  parser.add_argument("--small", action="store_true", help="at the sizes of the tests")
  args = parser.parse_args(argv)
  try:
    there = {path.stem: path for path in sorted(FOLDER.glob("*.py"))}
    if unknown := [name for name in args.names if name not in there]:
      raise Mistake(f"no notebook is called {unknown[0]!r}; choose from {', '.join(there)}")
    for name in args.names or there:
      print(write(there[name], args.out, small=args.small))
  except (Mistake, OSError) as error:
    print(f"notebooks: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  sys.exit(main())
