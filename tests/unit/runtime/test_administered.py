"""Secrets of the gateway's namespace: how they are read."""

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from modelyard.kube.client import ApiError
from modelyard.runtime.administered import SECRET_READS
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.tenants import TenantKeeper

KEYS = {
    f"key-{number}": base64.b64encode(f"sk-0123456789abcdef-{number}".encode()).decode()
    for number in range(3)
}


class Server:
    """Tenants with three keys each in a Secret of their own, and how they are read."""

    def __init__(self, tenants: int) -> None:
        self.tenants = tenants
        self.reads: list[str] = []
        self.open = self.most = 0
        self.refuses = ""

    async def list_pages(self, *_: Any, **__: Any) -> AsyncIterator[dict[str, Any]]:
        for number in range(self.tenants):
            keys = [{"name": f"secret-{number}", "key": key} for key in KEYS]
            metadata = {"name": f"tenant-{number}", "namespace": "modelyard-system", "generation": 1}
            metadata |= {"uid": str(number), "resourceVersion": "1"}
            yield {"metadata": metadata, "spec": {"keys": keys}}

    async def get(self, _: Any, __: str, name: str) -> dict[str, Any]:
        self.reads.append(name)
        self.open += 1
        self.most = max(self.most, self.open)
        await asyncio.sleep(0)
        self.open -= 1
        if name == self.refuses:
            raise ApiError(503, "Unavailable", "not now")
        return {"data": KEYS}

    async def apply(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


async def test_each_secret_is_read_once_in_a_round_and_a_bounded_number_at_a_time() -> None:
    server = Server(50)
    fleet = Fleet()
    keeper = TenantKeeper(server, fleet, OperatorSettings(), lambda: None)
    await keeper.start()
    assert sorted(server.reads) == sorted(f"secret-{number}" for number in range(50))
    assert 1 < server.most <= SECRET_READS
    assert len(fleet.tenants) == 50
    await keeper.start()
    assert len(server.reads) == 100, "the next round reads anew"


async def test_a_secret_that_cannot_be_read_fails_the_round_and_what_is_known_stays() -> None:
    server = Server(5)
    fleet = Fleet()
    keeper = TenantKeeper(server, fleet, OperatorSettings(), lambda: None)
    await keeper.start()
    before = fleet.tenant_keys
    server.refuses = "secret-3"
    with pytest.raises(ApiError, match="not now"):
        await keeper.start()
    assert fleet.tenant_keys is before
