"""Every notebook runs to its end at small sizes, and its page has what it printed and drew."""

import pytest

from scripts import notebook

NOTEBOOKS = sorted(notebook.FOLDER.glob("*.py"))
# takes some eight seconds of CPU at its small size, the others more
CHEAPEST = "speed"

FILE = """# %% [markdown]
# # A title
#
# Words.

# %%
import os
x = 2
print("small" if "NOTEBOOK_SMALL" in os.environ else "large")
x + 1

# %% tags=["hide-input"]
import matplotlib.pyplot as plt
_, axes = plt.subplots()
axes.set(title="a line", xlabel="x")
"""


@pytest.mark.parametrize(
  "path",
  [pytest.param(path, id=path.stem, marks=[] if path.stem == CHEAPEST else pytest.mark.slow) for path in NOTEBOOKS],
)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  outputs = [output for cell, output in notebook.run(path, small=True) if not cell.is_text]
  assert any(output.text for output in outputs)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_begins_with_its_title(path):
  first = notebook.cells(path.read_text())[0]
  assert first.is_text
  assert first.source.startswith("# ")


@pytest.mark.parametrize("page", sorted(notebook.PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_is_of_the_notebook_as_it_is(page):
  found, page = notebook.cells((notebook.FOLDER / f"{page.stem}.py").read_text()), page.read_text()
  # a page that was not written anew after a change would show the outputs of other code
  missing = [cell.line for cell in found[1:] if cell.source not in page]
  assert not missing, f"cells at lines {missing} are not on the page; ./dev notebooks writes it"


def test_cells_are_cut_run_and_written(tmp_path):
  path = tmp_path / "toy.py"
  path.write_text(FILE)
  page = notebook.write(path, tmp_path / "pages", small=True).read_text()
  assert page.startswith("# A title\n\n*Written by")
  assert "\nWords.\n" in page
  assert "```text\nsmall\n3\n```" in page
  assert '<details markdown="1">' in page
  assert "![a line](toy_1.png)" in page
  assert "Text(" not in page
  assert (tmp_path / "pages" / "toy_1.png").read_bytes().startswith(b"\x89PNG")


def test_a_cell_that_fails_names_its_line(tmp_path):
  path = tmp_path / "broken.py"
  path.write_text("# %%\nx = 1\n\n# %%\ny = 2\nraise KeyError(y)\n")
  with pytest.raises(KeyError) as error:
    list(notebook.run(path, small=False))
  assert error.traceback[-1].lineno + 1 == 6
  assert str(error.traceback[-1].path) == str(path)


def test_a_name_that_is_no_notebook_is_refused(capsys):
  assert notebook.main(["s5"]) == 2
  assert "no notebook is called 's5'; choose from" in capsys.readouterr().err
