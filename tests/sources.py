"""The project's own Python files, parsed once, for the tests that look at the code itself."""

import ast
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hybrids import mixer

ROOT = Path(__file__).parents[1]
FOLDERS = (
  ("kernels", "layers", "ssm", "attention", "hybrids", "data", "configs", "training", "inference", "interop")
  + ("scripts", "notebooks", "tests")
)  # fmt: skip


def python_files(*folders: str) -> list[Path]:
  """Every Python file under the folders (all of the project without any), main.py included."""
  files = [file for folder in folders or FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
  return files if folders else [*files, *ROOT.glob("*.py")]


@functools.cache
def parse(file: Path) -> ast.Module:
  return ast.parse(file.read_text(), filename=str(file))


def relative(file: Path) -> str:
  return file.relative_to(ROOT).as_posix()


@functools.cache
def imports(file: Path) -> tuple[str, ...]:
  """Dotted names of what a file imports, wherever in the file it does so."""
  found: list[str] = []
  for node in ast.walk(parse(file)):
    if isinstance(node, ast.Import):
      found += (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{relative(file)}:{node.lineno} imports relatively; write the whole path"
      found += (str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names))
  return tuple(found)


@functools.cache
def mixer_files() -> dict[str, Path]:
  """Name of each mixer and its file."""
  return {name: ROOT.joinpath(*module.split(".")).with_suffix(".py") for name, module in mixer.available().items()}


@functools.cache
def primitives(file: Path) -> frozenset[str]:
  """The kernels that a file, or what it imports from ssm/ and attention/, imports.

  `from kernels.lti import lti` and `from kernels import lti` are both 'lti'.
  """
  ops = {path.name for path in (ROOT / "kernels").iterdir() if path.is_dir()}
  found: set[str] = set()
  for name in imports(file):
    parts = name.split(".")
    if parts[0] == "kernels" and len(parts) > 1 and parts[1] in ops:
      found.add(parts[1])
    inner = ROOT.joinpath(*parts).with_suffix(".py")
    if parts[0] in ("ssm", "attention") and inner.is_file():
      found |= primitives(inner)
  return frozenset(found)


def primitives_of(section: Any) -> frozenset[str]:
  """The kernels that the mixers named anywhere in a section of a config import."""
  if isinstance(section, str):
    return frozenset()
  found = []
  if isinstance(section, Mapping):
    found += [primitives(mixer_files()[section["name"]])] if section.get("name") in mixer_files() else []
    section = section.values()
  found += [primitives_of(part) for part in section if isinstance(part, Mapping | Sequence)]
  return frozenset().union(*found)
