"""Fuzzes every reader of files, guided by what is reached: `python -m tests.fuzz -runs=100000`.

`--only TEXT` takes the readers whose names contain it; all else is libFuzzer's. Inputs are a byte
for the reader, a byte for whether the damage is done below compression and checksums, and content.
A failure leaves its input in a file `crash-…`, which may be given in place of flags to repeat it.
"""

import argparse
import sys
import tempfile
import warnings
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
GUIDING = ["csr_qdrant", "tarfile", "zipfile", "numpy.lib._format_impl"]  # what is reached there
with atheris.instrument_imports(include=GUIDING):
    from readers import READERS, Reader


class Fuzzed:
    """The readers that are fuzzed, each with a folder of its own."""

    def __init__(self, readers: dict[str, Reader], folder: Path) -> None:
        """Write a valid file for each reader."""
        self._names = sorted(readers)
        self._folders = [folder / str(number) for number in range(len(readers))]
        for place in self._folders:
            place.mkdir()
        self._readers = [readers[name] for name in self._names]
        self._seeds = [r.seed(f) for r, f in zip(self._readers, self._folders, strict=True)]

    def write_corpus(self, folder: Path) -> None:
        """Write what fuzzing starts from: a whole file of each kind, and what its layers hold."""
        for number, (reader, seed) in enumerate(zip(self._readers, self._seeds, strict=True)):
            for inside, content in enumerate([seed, *reader.layers(seed)]):
                (folder / f"{number}-{inside}").write_bytes(bytes([number, inside]) + content)

    def read(self, data: bytes) -> None:
        """Read a file with the content that fuzzing has come to."""
        number, content = (data[0] if data else 0) % len(self._readers), data[2:]
        reader, seed, folder = self._readers[number], self._seeds[number], self._folders[number]
        if data[1:2] != b"\0":
            content = reader.damaged(seed, lambda _: content)
        try:
            said = reader.refuses(folder, content)
            assert said is None or (said and "\n" not in said and len(said) < 2000), said
        except BaseException:
            sys.stderr.write(f"\nreader {self._names[number]!r} fails\n")
            raise


def main() -> None:
    """Fuzz until a failure, or as long as libFuzzer's flags say."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="part of the readers' names")
    options, flags = parser.parse_known_args()
    chosen = {name: reader for name, reader in READERS.items() if options.only in name}
    if not chosen:
        parser.error(f"no reader is called {options.only!r}: choose of {', '.join(READERS)}")
    warnings.simplefilter("ignore")  # Pillow's, of pictures that are damaged
    with tempfile.TemporaryDirectory() as scratch:
        readers, corpus = Path(scratch, "readers"), Path(scratch, "corpus")
        readers.mkdir()
        corpus.mkdir()
        fuzzed = Fuzzed(chosen, readers)
        fuzzed.write_corpus(corpus)
        repeated = any(Path(flag).is_file() for flag in flags)
        atheris.Setup([sys.argv[0], *flags, *([] if repeated else [str(corpus)])], fuzzed.read)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
