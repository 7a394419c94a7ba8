"""DNA as text: next-base prediction on the sequences of FASTA files, gzipped or not (HyenaDNA, Nguyen et al. 2023).

arXiv:2306.15794, with bytes for its characters: the letters of the sequence, in capitals, N and other codes among them.
Each record is a document. Some are held out as data/hold_out.py says: whole ones, or, of a single genome, its end.

`strands="both"` trains on the reverse complement of every record beside it, as HyenaDNA's augmentation does by chance.
`stages` is its warm-up of the sequence length: a row keeps its number of bases and is cut into shorter sequences.

Departs: there are no special tokens, and rows are cut from the whole genome, not from marked regions of it.
"""

import dataclasses
import gzip
import pathlib
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence

from data import pipeline
from data.generated import stage_at, stages_fit
from data.hold_out import hold_out
from data.packing import Document, Epochs, PackedText
from data.pipeline import Batch
from data.text_file import distinct, walk
from mistake import Mistake

STRANDS = ("one", "both")
COMPLEMENT = bytes.maketrans(b"ACGT", b"TGCA")
ENDINGS = (".fa", ".fna", ".fasta", ".ffn")


@dataclasses.dataclass(frozen=True)
class Fasta(PackedText):
  """Byte-level language modelling on DNA; a base that is uniform and independent of all others has 2 bits.

  Attributes:
    dir, files: a FASTA file, or a folder whose .fa, .fna, .fasta and .ffn files are read, gzipped or not; `files` is
      relative to `dir`.
    validation: share of the bases held out.
    strands: "one", as it stands in the files, or "both" in training.
    stages: rows of (first step, sequence length); `length` throughout without any.
  """

  length: int = 1024
  dir: str = ""
  files: str = ""
  validation: float = 0.05
  strands: str = "one"
  stages: tuple[tuple[int, int], ...] = ()

  def __post_init__(self) -> None:
    super().__post_init__()
    share, rows = self.validation, self.stages
    rising = stages_fit(rows, 2) and all(1 <= length <= self.length for _, length in rows)
    self.require_all(
      ("validation", 0 < share < 1, "a share between 0 and 1, e.g. 0.05"),
      ("strands", self.strands in STRANDS, f"choose from {STRANDS}"),
      ("stages", rising, f"rows (first step, length up to data.length={self.length}), first steps 0 < … growing"),
    )

  def read(self) -> Mapping[str, Sequence[Document]]:
    """Reads all records and holds out some; see `PackedText.read`.

    Raises:
      Mistake: there is no such file, or one that is no FASTA.
    """
    pipeline.require("Fasta", "files", self.files or self.dir, bool(self.files or self.dir), "name a file or a folder")
    folder = pipeline.folder("dir", self.dir) / pipeline.folder("files", self.files)
    is_dna = lambda path: path.name.lower().removesuffix(".gz").endswith(ENDINGS)
    paths = distinct(path for path in walk(folder) if is_dna(path)) if folder.is_dir() else [folder]
    if not paths:
      raise Mistake(f"folder {str(folder)!r} has no {', '.join(ENDINGS)} file, gzipped or not")
    splits = hold_out([record for path in paths for record in records(path) if record.text], self.validation)
    if self.strands == "one":
      return splits
    return {**splits, "train": [strand for record in splits["train"] for strand in (record, other_strand(record))]}

  def train(self, process_index: int = 0, process_count: int = 1) -> Iterator[Batch]:
    """Returns endless batches, whose rows `reset` cuts into sequences as long as the present stage says."""
    if not self.stages:
      return super().train(process_index, process_count)
    texts = [document.text for document in self.splits["train"]]
    epochs = Epochs(texts, self.length, self.batch, self.seed, self.stateful)

    def rows(first: int, count: int) -> Batch:
      batch = epochs(first, count)
      batch["reset"][:, :: self.stages[stage_at(self.stages, first // self.batch)][1]] = True
      return batch

    return pipeline.training(rows, self.batch, process_index, process_count)


def other_strand(record: Document) -> Document:
  """Returns the reverse complement of a record; letters that are no base stay."""
  return Document(f"{record.name} reversed", record.text.translate(COMPLEMENT)[::-1])


def records(path: pathlib.Path) -> Iterator[Document]:
  """Yields the sequences of a FASTA file, by their names, in capitals.

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
