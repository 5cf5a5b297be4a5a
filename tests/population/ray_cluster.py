"""A Ray cluster of two nodes on this machine, for tests: one core each, gone when the tests are over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["two_nodes"]


@contextmanager
def two_nodes() -> Iterator[str]:
    """Its address, which RAY_ADDRESS names meanwhile."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    each = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=each)
    cluster.add_node(num_cpus=1, object_store_memory=100 << 20)
    os.environ["RAY_ADDRESS"] = cluster.address
    try:
        yield cluster.address
    finally:
        del os.environ["RAY_ADDRESS"]
        ray.shutdown()
        cluster.shutdown()
