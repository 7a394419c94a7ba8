"""Pictures that appear under their name when they are whole."""

from pathlib import Path

from matplotlib.figure import Figure

from inference import whole_file


def save(figure: Figure, path: Path, dpi: int) -> None:
  """Writes a figure in the form that the name ends with.

  Raises:
    Mistake: the file cannot be written.
  """
  with whole_file.writing(path, binary=True) as file:
    figure.savefig(file, dpi=dpi, format=path.suffix[1:].lower())
