"""The lists and descriptions of what has a name."""

from hybrids import recipes
from training import describe


def test_published_models_are_listed_with_their_parameters():
  lines = describe.names("models").splitlines()
  assert [line.split()[0] for line in lines] == [*recipes.names(), *recipes.names(toys=True)]
  line = next(line for line in lines if line.startswith("jamba_v0.1"))
  assert "51,570,323,328" in line
  assert "12,000,000,000 active" in line


def test_a_model_is_described_by_its_source_and_its_sections():
  page = describe.page("mamba_130m")
  assert "arXiv:2312.00752" in page
  assert "body.letters.m.name" in page
