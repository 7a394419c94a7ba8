"""DNA as text: next-base prediction on the sequences of FASTA files, gzipped or not (HyenaDNA, Nguyen et al. 2023).

arXiv:2306.15794, with bytes for its characters: the letters of the sequence, in capitals, N and other codes among them.
Each record is a document. Some are held out as data/hold_out.py says: whole ones, or, of a single genome, its end.

Departs: there are no special tokens, and rows are cut from the whole genome, not from marked regions of it.
"""

import dataclasses
import gzip
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

from data import pipeline
from data.hold_out import hold_out
from data.packing import Document, PackedText
from data.text_file import distinct, walk
from mistake import Mistake

ENDINGS = (".fa", ".fna", ".fasta", ".ffn")


@dataclasses.dataclass(frozen=True)
class Fasta(PackedText):
  """Byte-level language modelling on DNA; a base that is uniform and independent of all others has 2 bits.

  Attributes:
    dir, files: a FASTA file, or a folder whose .fa, .fna, .fasta and .ffn files are read, gzipped or not; `files` is
      relative to `dir`.
    validation: share of the bases held out.
  """

  length: int = 1024
  dir: str = ""
  files: str = ""
  validation: float = 0.05

  def __post_init__(self) -> None:
    super().__post_init__()
    share = self.validation
    pipeline.require(type(self).__name__, "validation", share, 0 < share < 1, "a share between 0 and 1, e.g. 0.05")

  def read(self) -> Mapping[str, Sequence[Document]]:
    """Reads all records and holds out some; see `PackedText.read`.

    Raises:
      Mistake: there is no such file, or one that is no FASTA.
    """
    pipeline.require("Fasta", "files", self.files or self.dir, bool(self.files or self.dir), "name a file or a folder")
    place = pipeline.folder("dir", self.dir) / pipeline.folder("files", self.files)
    is_dna = lambda path: path.name.lower().removesuffix(".gz").endswith(ENDINGS)
    paths = distinct(path for path in walk(place) if is_dna(path)) if place.is_dir() else [place]
    if not paths:
      raise Mistake(f"folder {str(place)!r} has no {', '.join(ENDINGS)} file, gzipped or not")
    return hold_out([record for path in paths for record in records(path) if record.text], self.validation)


def records(path: pathlib.Path) -> Iterator[Document]:
  """The sequences of a FASTA file, by their names, in capitals.

  Raises:
    Mistake: it cannot be read, or does not begin with ">".
  """
  if not path.is_file():
    what = "is no file" if path.exists() else "does not exist"
    raise Mistake(f"{str(path)!r} {what}; check data.dir and data.files")
  try:
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
  except (OSError, EOFError, zlib.error) as error:
    raise Mistake(f"cannot read {str(path)!r}: {error}; check data.dir and data.files") from None
  if not data.lstrip().startswith(b">"):
    raise Mistake(f"{str(path)!r} is no FASTA file: it begins with {data[:20]!r}, not with '>'")
  # names may hold the sign, too
  for record in re.split(rb"(?:^|[\r\n])[ \t]*>", data)[1:]:
    name, *lines = record.splitlines() or [b""]
    # older files have comments
    bases = b"".join(b"".join(line.split()) for line in lines if not line.startswith(b";"))
    yield Document(f"{path}:{name.decode(errors='replace')}", bases.upper())
