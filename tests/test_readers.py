"""Whatever a file holds, its reader gives rows or one sentence of CsrError."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csr_qdrant.sources.open import SUFFIXES

sys.path.insert(0, str(Path(__file__).parent))
from readers import READERS

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
ROOT = Path(__file__).parent.parent
ROOMS = ("csr_qdrant", "trainer", "cli")
# What parses the content of files, here or in a library.
PARSERS = re.compile(
    r"json\.loads?\(|\bread_json\(|tomllib\.loads?\(|np\.load\(|np\.memmap\(|torch\.load\(|csv\."
    r"reader\(|safe_open\(|\bload_file\(|deserialize\(|gzip\.open\(|tarfile\.open\(|ZipFile\(|"
    r"Image\.open\(|ParquetFile\(|pickle\.loads?\(|yaml\.|np\.fromfile\(|marshal\.|shelve\."
)
# Where files are parsed that others may have made, and the reader of the list that goes there.
FOREIGN = {
    "cli/options.py": "settings .toml",
    "csr_qdrant/codes_file.py": "source .safetensors",
    "csr_qdrant/images.py": "picture png",
    "csr_qdrant/integrations/checkpoint.py": "checkpoint .pth",
    "csr_qdrant/interchange.py": "encoder config",
    "csr_qdrant/json_files.py": "collection",
    "csr_qdrant/linear.py": "adapter description",
    "csr_qdrant/sources/lines.py": "source .jsonl.gz",
    "csr_qdrant/sources/npy.py": "source .npy",
    "csr_qdrant/sources/npz.py": "source .npz",
    "csr_qdrant/sources/parquet.py": "source .parquet",
    "csr_qdrant/sources/records.py": "source .csv",
    "csr_qdrant/sources/webdataset.py": "shard",
    "csr_qdrant/stores/edge_folder.py": "collection",
    "csr_qdrant/stores/edge_reader.py": "edge shard",
    "csr_qdrant/stores/edge_repair.py": "killed shard, edge_config.json",
    "csr_qdrant/stores/whole_points_edge_setup.py": "edge shard, whole",
    "trainer/checkpoint.py": "checkpoint of a run",
}
# Where nothing is parsed but what this program has written itself, in a folder of its own, or what
# comes from elsewhere than a file.
OWN = {
    "cli/bench/texts.py": "vectors of texts, kept between runs",
    "cli/dense.py": "note beside vectors that are being written",
    "cli/image_shards.py": "journal of `csr embed`",
    "cli/queries.py": "lines of standard input, see test_cli_query",
    "cli/sweep_plan.py": "plan of a sweep",
    "csr_qdrant/sources/collection_download.py": "ids of a download",
    "csr_qdrant/sources/collection_labels.py": "labels of a download",
    "csr_qdrant/sources/download_files.py": "journal of a download",
    "csr_qdrant/stores/edge.py": "copy of what is in memory",
    "csr_qdrant/stores/edge_writer.py": "copy of what is in memory",
}
TOKENS = [b"Infinity", b"NaN", b"-1", b"1e999", b"9" * 40, b"null", b"true", b'"', b"\\ud800"]
TOKENS += [b"[" * 5000, b'{"a":' * 5000, b"\xff", b"\0", b"\n", b",", b"\t", b"../", b"9" * 5000]

Edit = tuple[int, int, bytes]  # where, how many bytes go, what takes their place
EDIT = st.tuples(
    st.integers(0, 2**13), st.integers(0, 9), st.sampled_from(TOKENS) | st.binary(max_size=8)
)


def parsing_modules() -> set[str]:
    """Return the modules in which the content of files is parsed, as paths from the root."""
    found = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            inside_link = any((ROOT / parent).is_symlink() for parent in Path(name).parents)
            if not inside_link and PARSERS.search(path.read_text("utf-8")):
                found.add(name)
    return found


def test_every_format_and_every_module_that_parses_files_is_in_the_list() -> None:
    assert {f"source {suffix}" for suffix in SUFFIXES} <= READERS.keys()
    assert set(FOREIGN.values()) <= READERS.keys()
    assert not FOREIGN.keys() & OWN.keys()
    assert parsing_modules() == FOREIGN.keys() | OWN.keys(), (
        "a module parses files: add a reader to tests/readers.py, and name the module here"
    )


@pytest.mark.parametrize("name", READERS)
def test_valid_files_are_read(name: str, tmp_path: Path) -> None:
    reader = READERS[name]
    seed = reader.seed(tmp_path)
    assert reader.refuses(tmp_path, seed) is None
    assert reader.refuses(tmp_path, reader.damaged(seed, lambda content: content)) is None


def edited(edits: list[Edit]) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        for place, gone, put in edits:
            at = place % (len(content) + 1)
            content = content[:at] + put + content[at + gone :]
        return content

    return change


@pytest.mark.parametrize("name", READERS)
@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(edits=st.lists(EDIT, min_size=1, max_size=4), inside=st.booleans())
def test_damaged_files_are_read_or_refused_in_one_sentence(
    name: str, tmp_path: Path, edits: list[Edit], inside: bool
) -> None:
    reader, change = READERS[name], edited(edits)
    if not (tmp_path / "seed").exists():
        (tmp_path / "seed").write_bytes(reader.seed(tmp_path))
    seed = (tmp_path / "seed").read_bytes()
    said = reader.refuses(tmp_path, reader.damaged(seed, change) if inside else change(seed))
    assert said is None or (said and "\n" not in said and len(said) < 2000), said


@pytest.mark.parametrize("name", READERS)
@settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(content=st.binary(max_size=300))
def test_random_bytes_are_read_or_refused_in_one_sentence(
    name: str, tmp_path: Path, content: bytes
) -> None:
    reader = READERS[name]
    if not (tmp_path / reader.file).exists():
        reader.write(tmp_path)
    said = reader.refuses(tmp_path, content)
    assert said is None or (said and "\n" not in said and len(said) < 2000), said
