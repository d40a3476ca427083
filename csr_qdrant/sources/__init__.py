"""Where rows come from: files, BEIR folders and arrays, streamed in blocks."""

from csr_qdrant.sources.arrays import ArraySource
from csr_qdrant.sources.base import Block, Source
from csr_qdrant.sources.beir import BeirSplit, beir_splits, read_beir, read_queries
from csr_qdrant.sources.collection_download import Downloaded, download_vectors
from csr_qdrant.sources.collection_points import CollectionVectors
from csr_qdrant.sources.open import open_source
from csr_qdrant.sources.options import ROW_NUMBER, SourceOptions
from csr_qdrant.sources.pairs import Pairs, read_pairs
from csr_qdrant.sources.spill import as_memmap

__all__ = [
    "ROW_NUMBER",
    "ArraySource",
    "BeirSplit",
    "Block",
    "CollectionVectors",
    "Downloaded",
    "Pairs",
    "Source",
    "SourceOptions",
    "as_memmap",
    "beir_splits",
    "download_vectors",
    "open_source",
    "read_beir",
    "read_pairs",
    "read_queries",
]
