"""Pages of the documentation site that are made as it is built, and Markdown made fit for it: hooks of MkDocs.

mkdocs.yml names this file twice. MkDocs calls the functions `on_…`; mkdocstrings, which makes the reference of
signatures and docstrings, lets `Equations` see every docstring first. ./dev docs builds the site.
"""

import html
import os
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml import converter
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# the notebooks with their outputs
RUN = ROOT / "docs" / "notebooks"
# page -> its title, and the files whose docstrings it has
PAGES: dict[str, tuple[str, tuple[str, ...]]] = {
  "ops": ("Ops", ("kernels/*/__init__.py",)),
  "time_invariant": ("State spaces that do not change with time", ("ssm/lti/*.py",)),
  "selective": ("Selective state spaces and recurrent networks", ("ssm/selective/*.py", "ssm/rnn/*.py")),
  "attention": ("Attention", ("attention/*.py", "attention/efficient/*.py")),
  "recurrent_attention": ("Linear attention and its successors", ("attention/recurrent/*.py",)),
  "layers": ("Layers that mixers share", ("layers/*.py",)),
  "models": ("Models: branches, bodies, heads, wrappers", ("hybrids/*.py", "hybrids/[!_r]*/*.py")),
  "recipes": ("Recipes of published models", ("hybrids/recipes/*.py",)),
  "tasks": ("Tasks", ("data/*.py",)),
  "training": ("Runs and training", ("training/*.py",)),
  "inference": ("Generation", ("inference/*.py",)),
}
# what the contract names in every mixer is described once, by the base class in layers/mixer.py
HIDDEN = 'filters: ["!^_", "!^(mix|mix_parallel|mix_token|mix_channels|setup|check|init_state|no_state)$"]'


def modules(patterns: tuple[str, ...]) -> list[str]:
  """Returns the dotted names of the files that match; a folder's __init__ only where a pattern asks for it."""
  found = []
  for pattern in patterns:
    for path in sorted(ROOT.glob(pattern)):
      if path.name != "__init__.py":
        found.append(".".join(path.relative_to(ROOT).with_suffix("").parts))
      elif pattern.endswith("__init__.py"):
        found.append(".".join(path.parent.relative_to(ROOT).parts))
  return found


def on_files(files: Files, config: Any) -> Files:
  """Adds the pages of the reference."""
  lines = ["# Reference", "", "Signatures, shapes and docstrings, read from the code.", ""]
  for name, (title, patterns) in PAGES.items():
    entries = [f"::: {module}\n    options:\n      {HIDDEN}\n" for module in modules(patterns)]
    files.append(File.generated(config, f"api/{name}.md", content="\n".join([f"# {title}", "", *entries])))
    lines.append(f"* [{title}]({name}.md)")
  files.append(File.generated(config, "api/index.md", content="\n".join(lines)))
  return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
  """Names files outside of docs/, which a reader of the repository can click on, instead of linking to them.

  A link to a notebook becomes one to its page, if it has been run.
  """
  folder = (ROOT / "docs" / page.file.src_uri).parent

  def name(match: re.Match) -> str:
    text, link = match.groups()
    path = (folder / link.partition("#")[0]).resolve()
    if path.parent == ROOT / "notebooks" and (RUN / f"{path.stem}.md").is_file():
      return f"[{text}]({os.path.relpath(RUN / path.stem, folder)}.md)"
    outside = path.is_relative_to(ROOT) and not path.is_relative_to(ROOT / "docs")
    return f"{text} (`{path.relative_to(ROOT)}`)" if outside else match[0]

  return re.sub(r"\[([^\]\[]+)\]\((\.\./[^)\s]+)\)", name, markdown)


def on_page_content(html_text: str, **_: Any) -> str:
  r"""Turns formulas, which arithmatex leaves as \(…\) and \[…\], into MathML, which browsers draw without a script."""

  def convert(match: re.Match) -> str:
    display = "block" if match[1] == "div" else "inline"
    return converter.convert(html.unescape(match[2]), display=display)

  return re.sub(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', convert, html_text, flags=re.DOTALL)


class Equations(griffe.Extension):
  """Makes Markdown of docstrings: a first paragraph with equations keeps its columns, and signs are only signs."""

  def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
    """Changes the docstring of a module, class or function."""
    if obj.docstring:
      obj.docstring.value = as_markdown(obj.docstring.value, equations=not obj.is_module)

  def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
    """Puts the fields of Linen modules and NamedTuples, whose constructors nobody writes, before the docstring."""
    fields = [
      f"{name}: {field.annotation}" + (f" = {field.value}" if field.value is not None else "")
      for name, field in cls.members.items()
      if field.is_attribute and field.annotation and "ClassVar" not in str(field.annotation) and name[0] != "_"
    ]
    if fields and not any("dataclass" in str(decorator.value) for decorator in cls.decorators):
      code = "\n".join(["```python", f"{cls.name}(", *(f"  {field}," for field in fields), ")", "```"])
      text = cls.docstring.value if cls.docstring else ""
      cls.docstring = griffe.Docstring(f"{code}\n\n{text}", parent=cls)


def as_markdown(docstring: str, *, equations: bool) -> str:
  """Returns a docstring as Markdown that looks as it reads: nothing in it is emphasis, a link or HTML.

  Sections become lists, one entry for `names: words`, whose names several arguments may share.
  """
  first, gap, rest = docstring.partition("\n\n")
  if equations and " = " in first:
    return f"```text\n{first}\n```{gap}{_lists(rest)}"
  return _lists(docstring)


def _lists(text: str) -> str:
  lines: list[str] = []
  in_section = False
  for line in text.split("\n"):
    entry = re.match(r"  (\S[^:]*): (.*)", line)
    if re.fullmatch(r"(Args|Attributes|Raises|Returns)( \(.*\))?:", line):
      lines += ["", f"**{line}**", ""]
      in_section = True
    elif in_section and entry:
      names = ", ".join(f"`{name}`" for name in entry[1].split(", "))
      lines.append(f"* {names}: {_escaped(entry[2])}")
    elif in_section and line.startswith(" "):
      lines.append(f"  {_escaped(line.strip())}")
    else:
      in_section = in_section and not line
      # a block that is indented by four is code, in which signs are only signs
      lines.append(line if line.startswith("    ") else _escaped(line))
  return "\n".join(lines)


def _escaped(line: str) -> str:
  """Puts backslashes before signs of Markdown, but between backticks."""
  parts = line.split("`")
  parts[::2] = [re.sub(r"([*_\[\]<>$|\\])", r"\\\1", part) for part in parts[::2]]
  return "`".join(parts)
