"""Embedders for tests: vectors of words by their hashes, which mean nothing but are quick."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence

from langchain_core.embeddings import Embeddings

DIMS = 64


def hashed(texts: Sequence[str]) -> list[list[float]]:
    """Texts with words in common are near each other."""
    return [_vector(text) for text in texts]


def _vector(text: str, dims: int = DIMS) -> list[float]:
    found = [0.0] * dims
    for word in text.lower().split():
        digest = hashlib.sha256(word.strip(".,?!").encode()).digest()
        found[digest[0] % dims] += 1.0 if digest[1] % 2 else -1.0
    length = math.sqrt(sum(value * value for value in found)) or 1.0
    return [value / length or 1e-3 for value in found]


class HashedEmbeddings(Embeddings):
    """The same as LangChain's Embeddings; it keeps what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(texts)
        return hashed(texts)

    def embed_query(self, text: str) -> list[float]:
        return _vector(text)


class HashingEmbedder(Embeddings):
    """Each word is a number of the vector: texts with words in common are near."""

    def __init__(self, dims: int = 64) -> None:
        self.dims = dims
        self.calls: list[list[str]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(texts)
        return [self.vector(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.vector(text)

    def vector(self, text: str) -> list[float]:
        """The vector of a text, of length 1."""
        numbers = [0.0] * self.dims
        for word in re.findall(r"\w+", text.lower()):
            digest = hashlib.blake2b(word.encode(), digest_size=4).digest()
            numbers[int.from_bytes(digest) % self.dims] += 1.0
        length = math.sqrt(sum(n * n for n in numbers)) or 1.0
        return [n / length for n in numbers]
