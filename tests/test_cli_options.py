"""Where the settings of a command come from: flags, variables, files, defaults."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NamedTuple

import pytest
import typer

from csr_qdrant import ConfigError
from csr_qdrant.cli.main import app
from csr_qdrant.cli.options import AsJson, configured
from csr_qdrant.cli.values import convert


@dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of every kind."""

    k: tuple[int, ...] = field(default=(8, 32), metadata={"help": "Active latents."})
    lr: float = 1e-3
    steps: int = 0
    clip: float | None = 1.0
    kind: Literal["f32", "f16", "u8"] = "f32"
    fast: bool = False
    shuffle: bool = True
    name: str = "x"
    folder: Path = field(default=Path("out"), metadata={"short": "-o", "metavar": "FOLDER"})
    names: tuple[str, ...] = field(default_factory=tuple)
    limit: int | None = None
    key: str | None = field(default=None, metadata={"env": ("OTHER_KEY",), "flag": False})

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"steps must not be negative, got {self.steps}")


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs `csr train ARGUMENTS` with a command of the test's own."""

    def call(command: Callable[..., None], *arguments: str) -> Ran:
        monkeypatch.setitem(sys.modules, "csr_qdrant.cli.train", SimpleNamespace(train=command))
        with pytest.raises(SystemExit) as exited:
            app(["train", *arguments], prog_name="csr")
        return Ran(int(exited.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def settle(run: Run) -> Callable[..., Config]:
    """Return a function that gives the Config which `csr train ARGUMENTS` would run with."""

    def call(*arguments: str) -> Config:
        seen: list[Config] = []

        @configured
        def train(config: Config) -> None:
            seen.append(config)

        ran = run(train, *arguments)
        assert (ran.code, ran.err) == (0, "")
        return seen[0]

    return call


@configured
def train(config: Config) -> None:
    """Train something.

    At length.
    """


def toml(folder: Path, text: str) -> str:
    path = folder / "c.toml"
    path.write_text(text, "utf-8")
    return str(path)


def test_nothing_given_means_the_defaults(settle: Callable[..., Config]) -> None:
    assert settle() == Config()


def test_flag_beats_environment_beats_file_beats_default(
    settle: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = toml(tmp_path, "lr = 0.25\nsteps = 1\nname = 'file'")
    assert settle("--config", path) == Config(lr=0.25, steps=1, name="file")
    monkeypatch.setenv("CSR_TRAIN_STEPS", "2")
    monkeypatch.setenv("CSR_TRAIN_NAME", "environment")
    assert settle("--config", path) == Config(lr=0.25, steps=2, name="environment")
    assert settle("--config", path, "--name", "flag") == Config(lr=0.25, steps=2, name="flag")
    assert settle("--name", "flag", "--config", path).name == "flag"


def test_giving_the_default_by_flag_still_beats_the_file(
    settle: Callable[..., Config], tmp_path: Path
) -> None:
    path = toml(tmp_path, "steps = 5\nfast = true\nk = [1]\nclip = 3")
    given = settle("--config", path, "--steps", "0", "--no-fast", "--k", "8,32", "--clip", "1")
    assert given == Config()


def test_an_empty_variable_is_not_set(
    settle: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CSR_TRAIN_STEPS", "")
    assert settle() == Config()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--k", "8,32"], Config(k=(8, 32))),
        (["--k", "8", "--k", "16, 32"], Config(k=(8, 16, 32))),
        (["--k", "4"], Config(k=(4,))),
        (["--names", "a,b", "--names", "c"], Config(names=("a", "b", "c"))),
        (["--lr", "3e-4"], Config(lr=3e-4)),
        (["--steps", "12"], Config(steps=12)),
        (["--clip", "none"], Config(clip=None)),
        (["--clip", "0.5"], Config(clip=0.5)),
        (["--kind", "u8"], Config(kind="u8")),
        (["--fast", "--no-shuffle"], Config(fast=True, shuffle=False)),
        (["-o", "a/b"], Config(folder=Path("a/b"))),
        (["--folder", "c"], Config(folder=Path("c"))),
        (["--limit", "3"], Config(limit=3)),
        (["--name", "none"], Config(name="none")),
    ],
)
def test_flags_of_every_type(
    settle: Callable[..., Config], arguments: list[str], expected: Config
) -> None:
    assert settle(*arguments) == expected


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("K", "8,16", Config(k=(8, 16))),
        ("LR", "1e-2", Config(lr=1e-2)),
        ("CLIP", "None", Config(clip=None)),
        ("FAST", "1", Config(fast=True)),
        ("FAST", "yes", Config(fast=True)),
        ("SHUFFLE", "False", Config(shuffle=False)),
        ("SHUFFLE", "off", Config(shuffle=False)),
        ("KIND", "f16", Config(kind="f16")),
        ("FOLDER", "x/y", Config(folder=Path("x/y"))),
        ("KEY", "secret", Config(key="secret")),
    ],
)
def test_variables_of_every_type(
    settle: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
    expected: Config,
) -> None:
    monkeypatch.setenv(f"CSR_TRAIN_{name}", text)
    assert settle() == expected


def test_further_variables_come_after_our_own(
    settle: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_KEY", "theirs")
    assert settle() == Config(key="theirs")
    monkeypatch.setenv("CSR_TRAIN_KEY", "ours")
    assert settle() == Config(key="ours")


def test_a_secret_has_no_flag(run: Run) -> None:
    refused = run(train, "--key", "secret")
    assert refused.code == 2
    assert "No such option" in refused.err
    assert "--key" not in run(train, "--help").out


def test_a_file_holds_settings_flat_or_in_a_table_or_both(
    settle: Callable[..., Config], tmp_path: Path
) -> None:
    expected = Config(k=(4, 8), lr=2.0, fast=True, folder=Path("f"), names=("a", "b"))
    settings = 'k = [4, 8]\nlr = 2\nfast = true\nfolder = "f"\nnames = "a,b"\n'
    assert settle("--config", toml(tmp_path, settings)) == expected
    assert settle("--config", toml(tmp_path, f"[train]\n{settings}")) == expected
    both = f"lr = 7.0\nsteps = 3\n[train]\n{settings}[index]\nwhatever = 1\n"
    both_expected = Config(k=(4, 8), lr=2.0, steps=3, fast=True, folder=Path("f"), names=("a", "b"))
    assert settle("--config", toml(tmp_path, both)) == both_expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("kk = 1", "csr train has no setting 'kk': it has clip, fast,"),
        ("[train]\nkk = 1\nsetps = 2", "csr train has no setting 'kk', 'setps'"),
        ("[trian]\nk = 1", "csr train has no setting 'trian'"),
        ("k = [1", "cannot be read as a TOML file"),
        ("k = 'a'", "c.toml: k must be an integer, got 'a'"),
        ("k = [1.5]", "c.toml: k must be an integer, got 1.5"),
        ("k = [true]", "c.toml: k must be an integer, got True"),
        ("steps = [1]", "c.toml: steps must be an integer, got [1]"),
        ("fast = 1", "c.toml: fast must be true or false, got 1"),
        ("lr = true", "c.toml: lr must be a number, got True"),
        ("name = 3", "c.toml: name must be a text, got 3"),
        ("folder = 3", "c.toml: folder must be a path, got 3"),
        ("kind = 'f64'", "c.toml: kind must be one of f32, f16, u8, got 'f64'"),
        ("train = 3", "csr train has no setting 'train'"),
        ("steps = -1", "steps must not be negative, got -1"),
    ],
)
def test_wrong_files_are_refused_in_one_sentence(
    run: Run, tmp_path: Path, text: str, words: str
) -> None:
    refused = run(train, "--config", toml(tmp_path, text))
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith("Error: ")
    assert refused.err.count("\n") == 1
    assert words in refused.err


def test_a_missing_or_unreadable_file_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    for name, words in [
        ("missing.toml", "No such file or directory"),
        (".", "Is a directory"),
        ("bytes.toml", "codec can't decode"),
    ]:
        refused = run(train, "--config", str(tmp_path / name))
        assert refused.code == 2
        assert f"Error: {tmp_path / name} cannot be read as a TOML file: " in refused.err
        assert words in refused.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--k", "8,x"], "Error: --k must be an integer, got 'x'"),
        (["--lr", "fast"], "Error: --lr must be a number, got 'fast'"),
        (["--kind", "f64"], "Error: --kind must be one of f32, f16, u8, got 'f64'"),
        (["--steps=-1"], "Error: steps must not be negative, got -1"),
        (["--clip", "x"], "Error: --clip must be a number, got 'x'"),
    ],
)
def test_wrong_flags_are_refused_in_one_sentence(
    run: Run, arguments: list[str], sentence: str
) -> None:
    assert run(train, *arguments) == (2, "", f"{sentence}\n")


def test_wrong_and_unknown_variables_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CSR_TRAIN_FAST", "maybe")
    sentence = "Error: CSR_TRAIN_FAST must be true or false, got 'maybe'\n"
    assert run(train) == (2, "", sentence)
    monkeypatch.delenv("CSR_TRAIN_FAST")
    monkeypatch.setenv("CSR_TRAIN_STEP", "1")
    sentence = "Error: CSR_TRAIN_STEP sets nothing: csr train has no setting 'step'\n"
    assert run(train) == (2, "", sentence)


def test_several_dataclasses_beside_parameters_of_the_command(run: Run) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Place:
        url: str = field(metadata={"help": "Where."})
        shards: int = 1

    seen: list[Any] = []

    @configured
    def train(
        vectors: Path,
        config: Config,
        place: Place,
        json: AsJson = False,
        extra: Annotated[str, typer.Option(help="More.")] = "e",
    ) -> None:
        seen.append((vectors, config, place, json, extra))

    assert run(train, "v.npy", "--url", "u", "--k", "2", "--json").code == 0
    assert seen == [(Path("v.npy"), Config(k=(2,)), Place(url="u"), True, "e")]
    missing = "--url is missing: give it, set CSR_TRAIN_URL, or put url into a --config file"
    assert run(train, "v.npy") == (2, "", f"Error: {missing}\n")
    assert "Missing argument" in run(train, "--url", "u").err
    assert "Where.  [required]" in run(train, "--help").out


def test_two_settings_of_one_name_are_a_mistake_of_the_command() -> None:
    def train(config: Config, name: str) -> None: ...

    with pytest.raises(TypeError, match="share the name name"):
        configured(train)


def test_types_without_a_meaning_are_a_mistake_of_the_command() -> None:
    @dataclass(frozen=True)
    class Odd:
        a: dict[str, int] = field(default_factory=dict)

    def train(config: Odd) -> None: ...

    with pytest.raises(TypeError, match="not supported"):
        configured(train)
    with pytest.raises(TypeError, match="one type, or one and None"):
        convert(int | str, "1", "--a")


def test_help_shows_what_there_is(run: Run) -> None:
    code, shown, err = run(train, "--help")
    assert (code, err) == (0, "")
    shown = " ".join(shown.split())
    for text in (
        "Usage: csr train [OPTIONS] Train something. At length.",
        "--k N,… Active latents. [default: 8,32]",
        "--steps N [default: 0]",
        "--kind [f32|f16|u8] [default: f32]",
        "--fast / --no-fast",
        "--shuffle / --no-shuffle [default: shuffle]",
        "-o, --folder FOLDER [default: out]",
        "--limit N --config FILE TOML file of settings, flat or under [train].",
        "CSR_TRAIN_<OPTION> variables win over it, flags over both.",
    ):
        assert text in shown


def test_shells_complete_options_and_choices(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "csr_qdrant.cli.train", SimpleNamespace(train=train))
    monkeypatch.setenv("_CSR_COMPLETE", "complete_bash")
    for words, count, expected in [
        ("csr train --kind ", "3", ["f32", "f16", "u8"]),
        ("csr train --kind f", "3", ["f32", "f16"]),
        ("csr train --no-s", "2", ["--no-shuffle"]),
    ]:
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", count)
        with pytest.raises(SystemExit):
            app([], prog_name="csr")
        assert capsys.readouterr().out.split() == expected
