"""`csr push`: put an encoder on the Hugging Face Hub, with a card of what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from csr_qdrant.cli.options import AsJson, DryRun, Overwrite, configured
from csr_qdrant.cli.output import Output, table
from csr_qdrant.encoder import Encoder

Folder = Annotated[Path, typer.Argument(metavar="ENCODER", help="Folder of the encoder.")]
Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the hub.")]
Private = Annotated[bool, typer.Option("--private", help="Make a new repository private.")]


@configured
def push(
    encoder: Folder,
    repo: Repository,
    private: Private = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    json: AsJson = False,
) -> None:
    """Put an encoder on the Hugging Face Hub, with a card of what training measured.

    The token is that of `hf auth login`, or HF_TOKEN. Other commands take the encoder as
    hf:OWNER/NAME. With --overwrite, a repository that holds files gets another commit.
    """
    from csr_qdrant.integrations.hub import push_to_hub

    out = Output(as_json=json)
    loaded = Encoder.load(encoder)
    pushed = push_to_hub(loaded, repo, private=private, overwrite=overwrite, dry_run=dry_run)
    result = {**pushed._asdict(), "fingerprint": loaded.fingerprint}
    if dry_run:
        rows = [(name, f"{size:,}") for name, size in pushed.files.items()]
        out.result(result, pushed.card, table(("file", "bytes"), rows))
    else:
        out.result(result, f"pushed encoder {loaded.fingerprint} to {pushed.url}")
