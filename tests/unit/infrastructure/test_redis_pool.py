"""How every connection to a Redis is made of an address."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from domain.errors.configuration import ConfigurationError
from infrastructure.buses.redis_wire import RedisWire
from infrastructure.orchestrators.redis_pacing import RedisPacing
from infrastructure.redis_server import RedisServer

_OWNERS: dict[str, Callable[[str], object]] = {
    "bus": lambda url: RedisWire(url, prefix="p", instance="i", patience_s=1.0),
    "pacing": RedisPacing,
    "server": lambda url: RedisServer(url, patience_s=1.0, variable="CONCLAVE_REDIS_URL"),
}


@pytest.mark.parametrize("owner", _OWNERS)
@pytest.mark.parametrize("url", ["http://:hidden@127.0.0.1/0", "redis://:hidden@127.0.0.1:port/0"])
def test_an_address_that_cannot_be_used_is_refused_without_repeating_it(owner: str, url: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        _OWNERS[owner](url)
    assert refused.value.variable == "CONCLAVE_REDIS_URL"
    assert "hidden" not in str(refused.value)
    assert refused.value.__cause__ is None
