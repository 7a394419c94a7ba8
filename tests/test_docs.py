"""The documentation holds together: links, the site's pages, and the papers in the bibliography."""

import ast
import re

from data import task
from tests import sources

DOCS = sources.ROOT / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), *sources.ROOT.glob("*.md")])


def test_links_lead_to_files_and_headings():
  wrong = []
  for page in PAGES:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
      path, _, heading = link.partition("#")
      # pages of the reference are made as the site is built
      if "://" in link or path.startswith("api/"):
        continue
      target = (page.parent / path).resolve() if path else page
      if not target.exists() or (heading and heading not in headings(target)):
        wrong.append(f"{sources.relative(page)}: {link}")
  assert not wrong, wrong


def headings(page):
  """The anchors of a page's headings, as GitHub and MkDocs make them."""
  titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
  return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title.lower()).strip()) for title in titles}


def test_the_site_has_every_page_once():
  nav = (sources.ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
  pages = re.findall(r": ([\w/]+\.md)$", nav, re.MULTILINE)
  written = [*DOCS.glob("*.md"), *DOCS.glob("notebooks/*.md"), DOCS / "results" / "README.md"]
  # made as the site is built
  assert sorted(pages) == sorted([*(str(page.relative_to(DOCS)) for page in written), "api/index.md"])
  # and the pages of results are found from theirs
  results = (DOCS / "results" / "README.md").read_text()
  missing = [page.name for page in DOCS.glob("results/*.md") if page.name != "README.md" and page.name not in results]
  assert not missing, missing


def test_the_reference_has_every_module_once():
  # read, not imported: the hooks need MkDocs
  tree = ast.parse((sources.ROOT / "scripts" / "site_pages.py").read_text())
  (pages,) = (node.value for node in tree.body if isinstance(node, ast.AnnAssign) and node.target.id == "PAGES")
  patterns = [pattern for _, patterns in ast.literal_eval(pages).values() for pattern in patterns]
  found = [file for pattern in patterns for file in sources.ROOT.glob(pattern)]
  assert len(found) == len(set(found))
  for folder in ("ssm", "attention", "layers", "hybrids", "training", "inference"):
    missing = {file for file in (sources.ROOT / folder).rglob("*.py") if file.name != "__init__.py"} - set(found)
    assert not missing, [sources.relative(file) for file in missing]


def test_every_paper_that_a_file_names_is_in_the_bibliography():
  """By its number on arXiv: year, month and five digits."""
  bibliography = (DOCS / "bibliography.md").read_text()
  files = {*sources.python_files(), *PAGES}
  cited = {
    paper: sources.relative(file)
    for file in files
    for paper in re.findall(r"(?<![\d.])\d\d(?:0[1-9]|1[0-2])\.\d{5}(?!\d)", file.read_text())
  }
  assert len(cited) > 100
  assert not {paper: file for paper, file in cited.items() if f"arXiv:{paper}" not in bibliography}


def test_every_mixer_stands_beside_its_paper():
  bibliography = (DOCS / "bibliography.md").read_text()
  for name, file in sources.mixer_files().items():
    if sources.relative(file).startswith(("ssm/", "attention/")):
      # the module's docstring, before the imports
      papers = re.findall(r"\d{4}\.\d{5}", file.read_text().split("\nfrom ", 1)[0])
      # an idea of one's own has no paper
      assert not papers or f"`{name}`" in bibliography, f"docs/bibliography.md does not name {name} beside its paper"


def test_every_task_stands_beside_its_configs():
  rows = re.findall(r"^\| (`.*?`) \| (`.*?`) \|.*\|.*\|$", (DOCS / "tasks.md").read_text(), flags=re.MULTILINE)
  named = lambda column: {name for row in rows for name in re.findall(r"`(\w+)`", row[column])}
  # of which only tests and models without a task of their own make use
  assert set(task.available()) - {"noise"} <= named(0)
  assert named(1) <= {path.stem for path in sources.python_files("configs")}


def test_prose_is_at_most_a_hundred_characters_wide():
  """Pages that a command writes are as it writes them; tables, pictures and code have the width that they need."""
  written = {DOCS / "models.md", DOCS / "results" / "generators.md", *(DOCS / "notebooks").glob("*.md")}
  for page in sorted({*PAGES, *sources.ROOT.glob("kernels/**/*.md")} - written):
    text = re.sub(
      r"^ *```.*?```$", lambda code: "\n" * code[0].count("\n"), page.read_text(), flags=re.DOTALL | re.MULTILINE
    )
    for number, line in enumerate(text.splitlines(), 1):
      fits = len(line) <= 100 or line.lstrip().startswith(("|", "![", "#"))
      assert fits, f"{sources.relative(page)}:{number} has {len(line)} characters"
