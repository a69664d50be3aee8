"""A session on a cluster: one leased wire of one node."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gravito import errors
from gravito.atlas._session import Session
from gravito.atlas.topology._node import ClusterNode
from gravito.atlas.wire.connection import Wire
from gravito.atlas.wire.entry import Spec

if TYPE_CHECKING:
    from gravito.atlas._cluster_client import ClusterClient


class ClusterSession(Session):
    """Commands on one connection to one node. Keys of other nodes' slots are refused by it: MovedError, AskError.

    Args:
        client: the cluster's client.
        node: the node, or None.
        slot: without a node, the slot whose node it is when the first command is sent; None for any primary.
    """

    _client: ClusterClient

    def __init__(self, client: ClusterClient, node: ClusterNode | None, slot: int | None) -> None:
        super().__init__(client)
        self._node = node
        self._slot = slot

    async def _lease(self) -> Wire:
        return await self._client._cluster.pool.acquire(self._slot, self._node)  # type: ignore[no-any-return]  # see Cluster.pool

    async def _run(
        self, spec: Spec, args: tuple[Any, ...], options: dict[str, Any] | None, text: bool
    ) -> Any:
        try:
            return await super()._run(spec, args, options, text)
        except errors.MovedError as error:  # the next session of this slot will be on the right node
            self._client._cluster.moved(error)
            raise
