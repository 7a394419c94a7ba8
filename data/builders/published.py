"""Data sets as their authors publish them: which files, how many sequences, and how they become arrays.

`python -m data.prepare` checks and converts them. A set whose files were tried here has checksums; of the others, whose
publishers give none or whose files could not be had, the counts of sequences are held to the published ones.
"""

import pathlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

from data import known_sets, retrieval
from data.builders import readers, texts
from data.original import File
from data.sequences import Sequences

# a name, and the function that makes the sequences: a part is made anew unless its file is there
Parts = Iterator[tuple[str, Callable[[], Sequences]]]

# how a run reads what is written
READ, EVENTS = "./dev run --config configs/arrays.py:files=FILE,offsets=offsets", ",times=times"


class Published(NamedTuple):
  """A published data set: its files, source and counts, and how it is read.

  Attributes:
    files: by name, or by a pattern of names.
    source: where it is published, and how large it is as a whole.
    counts: part -> its published number of sequences, lines, files or words.
    parts: the sequences of the files in a folder; None where a task reads them as they are.
    find: returns the numbers found in a folder, for sets without `parts`.
    command: how a run reads it; FILE is what was written and DIR the folder.
    folder: another name than the set's that a folder with the files may have.
  """

  files: Mapping[str, File]
  source: str
  counts: Mapping[str, int]
  parts: Callable[[pathlib.Path], Parts] | None = None
  find: Callable[[pathlib.Path], Mapping[str, int]] | None = None
  command: str = f"{READ},split=split"
  folder: str = ""


IDX = (
  *("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
  *("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
)
MNIST = (
  *("f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432"),
  *("9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"),
)
FASHION = (
  *("8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe"),
  *("bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"),
)
# bytes of these files
MNIST_SIZES, FASHION_SIZES = (9912422, 28881, 1648877, 4542), (26421880, 29515, 4422102, 5148)
IMAGES = {"train": 60000, "test": 10000}


def idx(sums: tuple[str, ...], sizes: tuple[int, ...], source: str) -> Published:
  """Describes a set in the four files of MNIST."""
  files = {name: File(f"md5:{digest}", size) for name, digest, size in zip(IDX, sums, sizes)}
  return Published(files, source, IMAGES, partial(readers.idx, names=IDX))


def known(name: str, counts: Mapping[str, int]) -> Published:
  """Describes a set of data/known_sets.py, which tasks read as it is: preparing it saves the unpacking."""
  one = known_sets.KNOWN[name]

  def parts(folder: pathlib.Path) -> Parts:
    yield "all", lambda: one.make([folder / file for file in one.files])

  has_split, has_times = "train" in counts, name.startswith("nmnist")
  command = READ + ",split=split" * has_split + (EVENTS + ",unit=1000") * has_times + f",tokens={one.tokens}"
  return Published(one.files, one.source, counts, parts, command=command, folder=one.folder)


def speech(words: tuple[str, ...] | None, rate: int, counts: Mapping[str, int]) -> Published:
  """Describes Speech Commands, 0.02, with its authors' lists of the validation and test parts."""
  files = {"validation_list.txt": File(), "testing_list.txt": File(), "*/*.wav": File()}
  source = (
    "download.tensorflow.org/data/speech_commands_v0.02.tar.gz, unpacked; 2,428,923,189 bytes, sha256 "
    "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
  )
  return Published(files, source, counts, partial(readers.speech, words=words, rate=rate))


def genomic(name: str, total: int) -> Published:
  """Describes one of GenomicBenchmarks: a folder for each part and class, a file for each sequence."""
  source = "github.com/ML-Bioinfo-CEITEC/genomic_benchmarks, downloaded by its package as folders of texts"
  files = {"train/*/*.txt": File(), "test/*/*.txt": File()}
  return Published(files, f"{source}: {name}", {"all": total}, readers.genomic, command=f"{READ},split=split,tokens=6")


def uea(name: str, train: int, test: int) -> Published:
  """Describes one of the multivariate series of the UEA archive."""
  files = {f"{name}_TRAIN.ts": File(), f"{name}_TEST.ts": File()}
  source = f"timeseriesclassification.com/description.php?Dataset={name}, the .ts files of its zip"
  return Published(files, source, {"train": train, "test": test}, partial(readers.uea, name=name))


def spikes(name: str, counts: Mapping[str, int]) -> Published:
  """Describes Spiking Heidelberg Digits or Speech Commands (Cramer et al. 2020), gunzipped."""
  files = {f"{name}_{'valid' if part == 'validation' else part}.h5": File() for part in counts}
  source = f"zenkelab.org/datasets: {', '.join(f'{file}.gz' for file in files)}, gunzipped"
  command = f"{READ},split=split{EVENTS},unit=0.001,tokens=700"
  return Published(files, source, counts, partial(readers.spikes, files=tuple(files)), command=command)


def wikitext(name: str, train: int) -> Published:
  """Describes WikiText, whose words are counted with one for the end of each line."""
  files = {f"wiki.{part}.tokens": File() for part in ("train", "valid", "test")}
  source = f"{name}-v1.zip of Merity et al. 2016, arXiv:1609.07843"
  command = (
    "./dev run --config configs/wikitext103.py:dir=DIR   or, as bytes, configs/text.py:dir=DIR,"
    "files=wiki.train.tokens,validation_files=wiki.valid.tokens,test_files=wiki.test.tokens"
  )
  counts = {"train": train, "valid": 217646, "test": 245569}
  return Published(files, source, counts, None, texts.words, command)


TEN = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
WHOLE_35 = {"train": 84843, "validation": 9981, "test": 11005}
SETS: dict[str, Published] = {
  "mnist": idx(MNIST, MNIST_SIZES, "storage.googleapis.com/cvdf-datasets/mnist"),
  "fashion_mnist": idx(FASHION, FASHION_SIZES, "github.com/zalandoresearch/fashion-mnist, data/fashion"),
  "cifar10": known("cifar10", {"train": 50000, "test": 10000}),
  "cifar10_grey": known("cifar10_grey", {"train": 50000, "test": 10000}),
  "imdb": known("imdb", {"train": 25000, "test": 25000}),
  "imdb_archive": Published(
    {"aclImdb_v1.tar.gz": File("md5:7c2ac02c03563afcf9b574c7e56c153a", 84125825)},
    "ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
    {"train": 25000, "test": 25000},
    readers.imdb,
    command=f"{READ},split=split,tokens=256",
  ),
  "spoken_digits": known("spoken_digits", {"train": 600, "test": 300}),
  "nmnist_subset": known("nmnist_subset", {"train": 1000, "test": 100}),
  "promoters_ecoli": known("promoters_ecoli", {"all": 3839}),
  "promoters_bacillus": known("promoters_bacillus", {"all": 1373}),
  "promoters_mouse": known("promoters_mouse", {"all": 4785}),
  "promoters_arabidopsis": known("promoters_arabidopsis", {"all": 4376}),
  "aan": Published(
    dict.fromkeys(retrieval.FILES.values(), File()),
    retrieval.SOURCE,
    {"train": 147086, "validation": 18090, "test": 17437},
    None,
    texts.pairs,
    "./dev run --config configs/lra.py:task=retrieval,dir=DIR",
  ),
  "speech_commands_35": speech(None, 16000, WHOLE_35),
  "speech_commands_35_8khz": speech(None, 8000, WHOLE_35),
  "speech_commands_10": speech(TEN, 16000, {}),
  "speech_commands_10_8khz": speech(TEN, 8000, {}),
  "wikitext_2": wikitext("wikitext-2", 2088628),
  "wikitext_103": wikitext("wikitext-103", 103227021),
  "pg19": Published(
    {"train/*.txt": File(), "validation/*.txt": File(), "test/*.txt": File()},
    "github.com/google-deepmind/pg19, the folders of its bucket deepmind-gutenberg, 11 GB",
    {"train": 28602, "validation": 50, "test": 100},
    None,
    texts.books,
    "./dev run --config configs/pg19.py:dir=DIR",
  ),
  "hg38": Published(
    {"*.fa*": File()},
    "hgdownload.soe.ucsc.edu/goldenPath/hg38/bigZips/hg38.fa.gz, 983,659,424 bytes",
    texts.HG38,
    None,
    texts.chromosomes,
    "./dev run --config configs/hg38.py:dir=DIR",
  ),
  "youtubemix": Published(
    {"*.wav": File()},
    "the 4-hour YouTubeMix of deepsound-project.github.io/samplernn-pytorch in pieces of a minute, 16 kHz",
    {"all": 241},
    None,
    texts.sounds,
    "./dev run --config configs/sounds.py:dataset=youtubemix,dir=DIR",
  ),
  "sc09": Published(
    {"validation_list.txt": File(), "testing_list.txt": File(), "zero/*.wav": File(), "nine/*.wav": File()},
    "the words zero to nine of Speech Commands; see speech_commands_35",
    {},
    None,
    texts.digits,
    "./dev run --config configs/sounds.py:dataset=sc09,dir=DIR",
  ),
  "shd": spikes("shd", {"train": 8156, "test": 2264}),
  "ssc": spikes("ssc", {"train": 75466, "validation": 9981, "test": 20382}),
  "nmnist": Published(
    {"Train/*/*.bin": File(), "Test/*/*.bin": File()},
    "Train.zip and Test.zip of garrickorchard.com/datasets/n-mnist, unpacked",
    IMAGES,
    readers.nmnist,
    command=f"{READ},split=split{EVENTS},unit=1000,tokens=2312",
  ),
  "dvs128": Published(
    {"trials_to_train.txt": File(), "trials_to_test.txt": File(), "*.aedat": File(), "*_labels.csv": File()},
    "the DVS128 Gesture archive of research.ibm.com/dvsgesture, 3 GB unpacked",
    {},
    readers.dvs128,
    command=f"{READ},split=split{EVENTS},unit=1000,tokens=32768",
  ),
}
SETS |= {
  f"genomic_{name}": genomic(name, total)
  for name, total in {
    "dummy_mouse_enhancers_ensembl": 1210,
    "demo_coding_vs_intergenomic_seqs": 100000,
    "demo_human_or_worm": 100000,
    "human_enhancers_cohn": 27791,
    "human_enhancers_ensembl": 154842,
    "human_ensembl_regulatory": 289061,
    "human_nontata_promoters": 36131,
    "human_ocr_ensembl": 174756,
  }.items()
}
SETS |= {
  f"uea_{name.lower()}": uea(name, train, test)
  for name, train, test in (
    ("EigenWorms", 128, 131),
    ("SelfRegulationSCP1", 268, 293),
    ("SelfRegulationSCP2", 200, 180),
    ("EthanolConcentration", 261, 263),
    ("Heartbeat", 204, 205),
    ("MotorImagery", 278, 100),
  )
}
