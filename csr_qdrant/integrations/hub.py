"""The Hugging Face Hub: encoders pushed to it, with a card of what was measured, and loaded.

An encoder on the hub is written `hf:OWNER/NAME` or `hf:OWNER/NAME@REVISION`. Only JSON and
safetensors are downloaded. The token is what `hf auth login` or HF_TOKEN gave; it is not read here.
"""

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, TypeVar

from csr_qdrant.encoder import Encoder
from csr_qdrant.errors import ConfigError, CsrError, MissingExtraError
from csr_qdrant.integrations.model_card import model_card
from csr_qdrant.interchange import CONFIG, INFO, MODULES, WEIGHTS, module_folder

PREFIX = "hf:"
CARD = "README.md"
SOURCE = "source"  # key under which training records where its vectors came from
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NOT_OURS = {".gitattributes", ".gitignore", "LICENSE", "LICENSE.md"}  # the hub's, left alone

T = TypeVar("T")


class Pushed(NamedTuple):
    """What was pushed, or would be."""

    repo: str  # OWNER/NAME
    url: str | None  # of the commit; None for a dry run
    files: dict[str, int]  # name -> bytes
    card: str  # the text of README.md


def from_hub(name: str) -> Encoder:
    """Return the encoder in a repository of the hub: ours, or a `SparseEncoder` with CSR codes.

    `name` is OWNER/NAME[@REVISION], with or without `hf:` before it. What was downloaded is kept
    in the hub's own cache, and found there without a network. Raises ConfigError for other names,
    CsrError if the repository cannot be reached or holds no encoder.
    """
    repo, revision = parsed_name(name)
    hub = _hub()

    def download(*patterns: str) -> Path:
        return Path(
            _asked(
                repo,
                lambda: hub.snapshot_download(
                    repo, revision=revision, allow_patterns=list(patterns)
                ),
            )
        )

    folder = download(MODULES, CONFIG, INFO)
    # Of a whole pipeline only the module that makes the codes is wanted, not the backbone.
    module = module_folder(folder).relative_to(folder)
    files = [
        (PurePosixPath(module.as_posix()) / each).as_posix() for each in (CONFIG, WEIGHTS, INFO)
    ]
    return Encoder.load(download(MODULES, CONFIG, INFO, *files))


def push_to_hub(
    encoder: Encoder,
    repo: str,
    *,
    private: bool = False,
    overwrite: bool = False,
    dry_run: bool = False,
) -> Pushed:
    """Push `encoder` and its card to the repository `repo` (OWNER/NAME), made if there is none.

    The card holds the figures that training recorded in the encoder, and no others. Local paths
    that the encoder remembers are cut to their last part.

    Raises:
        ConfigError: `repo` is no name of a repository, or it holds files and `overwrite` (a new
            commit on top of them) is not set.
        CsrError: the hub cannot be reached or refuses.
    """
    repo, revision = parsed_name(repo)
    if revision is not None:
        raise ConfigError(f"push to a repository, got a revision, {revision!r}: leave it out")
    public = replace(encoder, info=public_info(encoder.info))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "encoder"
        public.save(folder)
        card = model_card(public, repo)
        (folder / CARD).write_text(card, "utf-8")
        files = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
        url = None if dry_run else _upload(repo, folder, private=private, overwrite=overwrite)
    return Pushed(repo, url, files, card)


def parsed_name(name: str) -> tuple[str, str | None]:
    """Return repository and revision of `[hf:]OWNER/NAME[@REVISION]`; ConfigError for others."""
    repo, at, revision = name.removeprefix(PREFIX).partition("@")
    if not _NAME.fullmatch(repo) or (at and not revision):
        raise ConfigError(f"{name!r} is no repository of the hub: write OWNER/NAME")
    return repo, revision or None


def public_info(value: Any) -> Any:
    """Return what `csr.json` holds, with local paths cut to their last part."""
    if isinstance(value, dict):
        return {
            key: _file_name(each) if key == SOURCE else public_info(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [public_info(each) for each in value]
    return _without_folders(value) if isinstance(value, str) else value


def _file_name(source: Any) -> Any:
    """Return where vectors came from without folders: a relative path looks like OWNER/NAME."""
    if not isinstance(source, str) or "://" in source:
        return public_info(source)
    return PureWindowsPath(source).name


def _without_folders(text: str) -> str:
    scheme, colon, rest = text.rpartition(":") if not _is_local(text) else ("", "", text)
    if not _is_local(rest):
        return text
    return scheme + colon + PureWindowsPath(rest).name  # takes both kinds of slashes


def _is_local(text: str) -> bool:
    return (
        text.startswith(("/", "~", "./", "../", "\\"))
        or re.match(r"[A-Za-z]:[\\/]", text) is not None
        or ("/" in text and _exists(text.partition("?")[0]))
    )


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):  # too long for a path, or with a null byte
        return False


# --- talking to the hub ---------------------------------------------------------------------------


def _upload(repo: str, folder: Path, *, private: bool, overwrite: bool) -> str:
    api = _hub().HfApi()
    if _asked(repo, lambda: api.repo_exists(repo)):
        there = set(_asked(repo, lambda: api.list_repo_files(repo))) - _NOT_OURS
        if there and not overwrite:
            raise ConfigError(
                f"{repo} holds {len(there)} files already ({min(there)}, …): choose another name "
                f"or pass overwrite, which adds a commit"
            )
    else:
        _asked(repo, lambda: api.create_repo(repo, private=private))
    message = "Encoder of csr-qdrant"
    commit = _asked(
        repo, lambda: api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    )
    return str(commit.commit_url)


def _hub() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    return huggingface_hub


def _asked(repo: str, ask: Callable[[], T]) -> T:
    """Return what the hub answers; raises CsrError, one sentence, if it does not."""
    try:
        return ask()
    except Exception as error:  # its own kinds, those of the HTTP library beneath, and OSError
        raise CsrError(_explained(repo, error)) from error


def _explained(repo: str, error: Exception) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in kinds:
        return f"{repo} is gated: accept its terms on the hub and log in with `hf auth login`"
    if "RevisionNotFoundError" in kinds:
        return f"{repo} has no such revision: check what stands behind the @"
    if status in (401, 403):
        return (
            f"{repo}: the hub refused ({status}): log in with `hf auth login` or set HF_TOKEN to a "
            f"token that may do this, and check the name"
        )
    if "RepositoryNotFoundError" in kinds:
        return f"there is no {repo} on the hub, or you may not see it: check the name, or log in"
    if status is not None:
        return f"{repo}: the hub answered {status}: try again later"
    reason = " ".join(str(error).split()) or type(error).__name__
    if "LocalEntryNotFoundError" in kinds or "OfflineModeIsEnabled" in kinds:
        reason = "it is not in the cache either"
    return f"cannot reach the hub for {repo} ({reason[:200]}): check the network and HF_HUB_OFFLINE"
