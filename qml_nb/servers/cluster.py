"""Redis Cluster: how servers that know nothing of each other become one."""

from __future__ import annotations

from contextlib import ExitStack
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qml_nb.servers.process import LocalServer

SLOTS = 16_384
# A node counts as failed after this many ms: a promotion takes 2 to 4 s, and a busy laptop is no failure.
CLUSTER_OPTIONS = {"cluster-enabled": "yes", "cluster-node-timeout": "2000", "cluster-announce-ip": "127.0.0.1"}
_FORM_TIMEOUT = 30.0
_POLL = 0.01


def form_cluster(primaries: Sequence[LocalServer], replicas: Sequence[LocalServer]) -> None:
    """Share the slots out evenly, give each primary its replicas in turn, and wait until every node serves.

    Two seconds of it are Redis's own: a primary that has just started does not serve before.
    """
    with ExitStack() as stack:
        first, *others = nodes = [stack.enter_context(_Node(server)) for server in (*primaries, *replicas)]
        for index, primary in enumerate(nodes[: len(primaries)]):
            primary.take_slots(SLOTS * index // len(primaries), SLOTS * (index + 1) // len(primaries))
            primary.call("SET-CONFIG-EPOCH", index + 1)
        for node in others:
            node.call("MEET", "127.0.0.1", first.server.port)
        _wait(nodes, lambda node: node.knows(len(nodes)))
        for index, replica in enumerate(nodes[len(primaries) :]):
            replica.call("REPLICATE", nodes[index * len(primaries) // len(replicas)].call("MYID"))
        _wait(nodes, lambda node: node.serves(len(primaries), len(replicas)))


class _Node:
    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self.client: Any = Redis.from_url(server.url, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.client.close()

    def call(self, command: str, *arguments: str | int) -> Any:
        return self._ask(f"CLUSTER {command}", *arguments)

    def take_slots(self, start: int, end: int) -> None:
        self.call("ADDSLOTS", *range(start, end))  # not ADDSLOTSRANGE, which Redis 6 has not

    def knows(self, nodes: int) -> bool:
        return int(self.call("INFO")["cluster_known_nodes"]) == nodes

    def serves(self, primaries: int, replicas: int) -> bool:
        """Whether it sees the whole cluster at work, and is in step with its primary: else it could not take over."""
        info = self.call("INFO")
        seen = [node["flags"].split(",") for node in self.call("NODES").values()]
        return (
            (info["cluster_state"], int(info["cluster_slots_ok"])) == ("ok", SLOTS)
            and (int(info["cluster_size"]), len(seen)) == (primaries, primaries + replicas)
            and sum("slave" in flags for flags in seen) == replicas
            and self._ask("INFO", "replication").get("master_link_status", "up") == "up"
        )

    def _ask(self, command: str, *arguments: str | int) -> Any:
        try:
            return self.client.execute_command(command, *arguments)
        except RedisError as error:
            raise self.server.failed(f"did not join the cluster ({error})") from error


def _wait(nodes: Sequence[_Node], condition: Callable[[_Node], bool]) -> None:
    deadline = monotonic() + _FORM_TIMEOUT
    for node in nodes:
        while not condition(node):
            if monotonic() > deadline:
                raise node.server.failed(f"was not part of the cluster after {_FORM_TIMEOUT:g} s")
            sleep(_POLL)
