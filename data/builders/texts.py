"""Counts of published texts, books, genomes and sounds, which tasks read as they are."""

import pathlib
from collections.abc import Mapping

from data import fasta, retrieval

# bases of each chromosome of the human reference genome GRCh38
HG38 = {
  f"chr{name}": size
  for name, size in {
    **{"1": 248956422, "2": 242193529, "3": 198295559, "4": 190214555, "5": 181538259, "6": 170805979},
    **{"7": 159345973, "8": 145138636, "9": 138394717, "10": 133797422, "11": 135086622, "12": 133275309},
    **{"13": 114364328, "14": 107043718, "15": 101991189, "16": 90338345, "17": 83257441, "18": 80373285},
    **{"19": 58617616, "20": 64444167, "21": 46709983, "22": 50818468, "X": 156040895, "Y": 57227415},
  }.items()
}


def words(folder: pathlib.Path) -> Mapping[str, int]:
  """Counts the words between blanks in each part of WikiText, and one for the end of each line."""
  counts = {}
  for part in ("train", "valid", "test"):
    with (folder / f"wiki.{part}.tokens").open(encoding="utf-8") as file:
      counts[part] = sum(len(line.split()) + 1 for line in file)
  return counts


def pairs(folder: pathlib.Path) -> Mapping[str, int]:
  """Counts the lines of each part of AAN."""
  counts = {}
  for part, name in retrieval.FILES.items():
    with (folder / name).open("rb") as file:
      counts[part] = sum(1 for _ in file)
  return counts


def books(folder: pathlib.Path) -> Mapping[str, int]:
  """Counts the files of each part of PG-19."""
  return {part: sum(1 for _ in (folder / part).glob("*.txt")) for part in ("train", "validation", "test")}


def chromosomes(folder: pathlib.Path) -> Mapping[str, int]:
  """Counts the bases of each whole chromosome in the FASTA files of a folder."""
  sizes = {}
  for path in sorted(folder.glob("*.fa*")):
    for record in fasta.records(path):
      name = record.name.rpartition(":")[2].split()[0]
      if name in HG38:
        sizes[name] = len(record.text)
  return sizes


def sounds(folder: pathlib.Path) -> Mapping[str, int]:
  """Counts the .wav files of a folder."""
  return {"all": sum(1 for _ in folder.glob("*.wav"))}


def digits(folder: pathlib.Path) -> Mapping[str, int]:
  """Counts the .wav files of each spoken digit; no number is published."""
  return {path.name: sum(1 for _ in path.glob("*.wav")) for path in sorted(folder.iterdir()) if path.is_dir()}
