"""What is used in a `with` block and closed at its end."""

from abc import ABC, abstractmethod
from typing import Self


class Closing(ABC):
    """Closes itself at the end of a `with` block."""

    @abstractmethod
    def close(self) -> None:
        """Release what is held; nothing else may be called afterwards."""

    def __enter__(self) -> Self:
        """Return the object itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Close it."""
        self.close()
