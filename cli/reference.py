"""The help texts in docs/cli.md, written there by `python -m csr_qdrant.cli.reference FILE`."""

import re
import sys
from pathlib import Path

from csr_qdrant.cli import lazy
from csr_qdrant.cli.main import COMMANDS, PACKAGE, load

WIDTH = 100
_BLOCK = re.compile(r"(<!-- help: csr ([\w -]+) -->\n)(.*?)(<!-- end of help -->)", re.DOTALL)


def help_text(name: str) -> str:
    """Return what `csr NAME --help` prints on a terminal of 100 columns."""
    group, _, inner = name.partition(" ")
    command = lazy.load(f"{PACKAGE}.{group}", inner) if inner else load(group)
    context = command.context_class(
        command, info_name=f"csr {name}", terminal_width=WIDTH, max_content_width=WIDTH
    )
    return "\n".join(line.rstrip() for line in command.get_help(context).splitlines())


def with_help_texts(document: str) -> str:
    """Return `document` with the current help texts between its marks; raises KeyError for others.

    The marks are `<!-- help: csr NAME -->` and `<!-- end of help -->`.
    """

    def renewed(found: re.Match[str]) -> str:
        name = found[2]
        if name.partition(" ")[0] not in COMMANDS:
            raise KeyError(name)
        return f"{found[1]}```text\n{help_text(name)}\n```\n{found[4]}"

    return _BLOCK.sub(renewed, document)


def main() -> None:
    """Renew the help texts of the file named on the command line."""
    path = Path(sys.argv[1])
    path.write_text(with_help_texts(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main()
