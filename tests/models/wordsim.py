"""Similarity of words by MiniLM's embeddings against people's judgement: WordSim-353, from gensim's tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.models import zoo

Array = NDArray[Any]
Run = Callable[[dict[str, Array]], Array]
"""From the model's three inputs [1, LENGTH] to its last hidden state [1, LENGTH, 384]."""

LENGTH = 16
"""Tokens of an input: the longest word has 7."""

_GENSIM = zoo.Package(
    "gensim", "4.4.0", "91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8", python="3.11"
)


def pairs() -> list[tuple[str, str, float]]:
    """Two words, and how similar people find them, from 0 to 10."""
    (path,) = zoo.fetch(_GENSIM, "gensim/test/test_data/wordsim353.tsv")
    lines = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    return [(first, second, float(score)) for first, second, score in lines]


def tokens(text: str) -> dict[str, Array]:
    """A text as the model's inputs."""
    ids = _tokenizer().encode(text).ids
    row = np.zeros((1, LENGTH), np.int64)
    row[0, : len(ids)] = ids
    mask = np.zeros((1, LENGTH), np.int64)
    mask[0, : len(ids)] = 1
    return {"input_ids": row, "attention_mask": mask, "token_type_ids": np.zeros_like(row)}


@cache
def _tokenizer() -> Any:
    from tokenizers import Tokenizer  # only here: models without words need none

    (path,) = zoo.fetch(zoo.MINILM, "*/model/tokenizer.json")
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LENGTH)
    return tokenizer


def sentences(count: int) -> list[str]:
    """Running text to calibrate with, none of it the test's: what the model's package says of itself."""
    (path,) = zoo.fetch(zoo.MINILM, "*/model/README.md")
    words = path.read_text().split()
    return [" ".join(words[at : at + 12]) for at in range(0, 12 * count, 12)]


def correlation(run: Run, part: Sequence[tuple[str, str, float]] | None = None) -> float:
    """Spearman's rank correlation between cosines of embeddings and people's judgement."""
    chosen = pairs() if part is None else part
    words = sorted({word for first, second, _ in chosen for word in (first, second)})
    embedded = {word: embed(run, word) for word in words}
    cosines = [float(embedded[first] @ embedded[second]) for first, second, _ in chosen]
    return _spearman(np.array(cosines), np.array([score for *_, score in chosen]))


def embed(run: Run, text: str) -> Array:
    """The mean of the hidden states of a text's tokens, of length 1."""
    feeds = tokens(text)
    mask = feeds["attention_mask"][0, :, None]
    mean: Array = (run(feeds)[0] * mask).sum(0) / mask.sum()
    return mean / np.linalg.norm(mean)


def _spearman(a: Array, b: Array) -> float:
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: Array) -> Array:
    """Ranks; equal values share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[inverse]
