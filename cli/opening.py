"""What commands open at a place; only the engine that is meant is imported."""

from typing import TYPE_CHECKING, Any

from csr_qdrant.cli.places import FolderPlace, Place, ServerPlace

if TYPE_CHECKING:
    from csr_qdrant.sources import CollectionVectors
    from csr_qdrant.stores.edge_writer import EdgeCodeWriter
    from csr_qdrant.stores.server_writer import ServerCodeWriter
    from csr_qdrant.stores.whole_points import NewPlace
    from csr_qdrant.stores.whole_points_edge import EdgePoints
    from csr_qdrant.stores.whole_points_server import ServerPoints


def open_writer(place: Place) -> "EdgeCodeWriter | ServerCodeWriter":
    """Open a place for writing codes; its client stays open."""
    if isinstance(place, FolderPlace):
        from csr_qdrant.stores.edge_writer import EdgeCodeWriter

        return EdgeCodeWriter.open(place.folder)
    from csr_qdrant.stores.server_writer import ServerCodeWriter

    return ServerCodeWriter.open(*_on_server(place))


def open_points(place: Place) -> "EdgePoints | ServerPoints":
    """Open a place for reading whole points; its client stays open."""
    if isinstance(place, FolderPlace):
        from csr_qdrant.stores.whole_points_edge import EdgePoints

        return EdgePoints.open(place.folder)
    from csr_qdrant.stores.whole_points_server import ServerPoints

    return ServerPoints.open(*_on_server(place))


def new_place(place: Place) -> "NewPlace":
    """Return where a copy of a collection is to be; nothing is opened or made."""
    if isinstance(place, FolderPlace):
        from csr_qdrant.stores.whole_points_edge import EdgePlace

        return EdgePlace(place.folder)
    from csr_qdrant.stores.whole_points_server import ServerPlace as NewServerPlace

    return NewServerPlace(*_on_server(place))


def open_vectors(
    place: Place, vector: str | None, *, owns_client: bool = False
) -> "CollectionVectors":
    """Open a place for reading its dense vector `vector`, None for the only one.

    `owns_client` says that the client, if there is one, is closed with it.
    """
    from csr_qdrant.sources import CollectionVectors

    if isinstance(place, FolderPlace):
        return CollectionVectors.open(place.folder, vector)
    return CollectionVectors.open_on(*_on_server(place), vector, owns_client=owns_client)


def _on_server(place: Place) -> tuple[Any, str]:
    """Return client and collection of a place that is no folder."""
    assert isinstance(place, ServerPlace)
    return place.client, place.collection
