"""`csr bench`: what quality, bytes, latency and build time look like for every way of shrinking."""

from csr_qdrant.cli.lazy import lazy_group

PACKAGE = "csr_qdrant.cli.bench"
COMMANDS = {
    "nave": "Topics and verses that come with the package.",
    "beir": "A folder in BEIR's layout: texts, queries, judgements.",
    "labels": "Vectors with labels: nearest-neighbour classification.",
    "image-text": "Images and captions: COCO, Flickr30k, and their like.",
    "mteb": "Retrieval tasks of MTEB, by name.",
    "collection": "A collection that you have, by its own dense vectors.",
    "retrieval-time": "Matrix products, as the papers time, and the engine.",
    "scale": "Latency and RAM of collections too large to try.",
    "export": "Codes and exact results for vector-db-benchmark.",
    "report": "Tables of finished runs, and one page of several.",
}
HELP = """Measure every way to shrink vectors, on your data.

Each command builds dense, truncated, quantised and CSR indexes of the same vectors in the same
engine, and measures quality, bytes, latency, throughput and build time. A run that was killed goes
on where it stopped when the same command is given again.
"""

group = lazy_group(PACKAGE, COMMANDS, add_completion=False, help=HELP)
