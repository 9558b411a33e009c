"""Budgets as the operator reads them from a real API server, and what it writes back."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from dev.cluster.control_plane import ControlPlane
from modelyard.core.budget.judge import STALE_AFTER
from modelyard.core.reasons import Code
from modelyard.core.spend import HOUR, Spend, SpendKey, SpendLine
from modelyard.kube.client import ApiError, KubeClient
from modelyard.render.settings import PodPeer
from modelyard.runtime.budgets import BudgetKeeper
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import REGISTRY
from modelyard.runtime.queue import WorkQueue
from modelyard.runtime.settings import OperatorSettings
from tests.apiserver.client import MERGE, ApiServer, resource_path


class Setting:
    """A namespace that stands for the gateway's, and a keeper that reads it."""

    def __init__(self, server: ApiServer, client: KubeClient, namespace: str) -> None:
        self.server = server
        self.namespace = namespace
        self.fleet = Fleet()
        self.changes = 0
        settings = OperatorSettings()
        settings = replace(settings, render=replace(settings.render, gateway=PodPeer(namespace, {})))
        self.keeper = BudgetKeeper(client, self.fleet, WorkQueue(), settings, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def create(self, name: str, **spec: Any) -> None:
        body = {
            "apiVersion": "modelyard.dev/v1alpha1",
            "kind": "LLMBudget",
            "metadata": {"name": name},
            "spec": {"amount": "10", "period": "Month", **spec},
        }
        reply = self.server.request("POST", resource_path("LLMBudget", self.namespace), body)
        assert reply.status == 201, reply.message

    def change(self, name: str, **spec: Any) -> None:
        path = resource_path("LLMBudget", self.namespace, name)
        assert self.server.request("PATCH", path, {"spec": spec}, MERGE).status == 200

    def spend(self, dollars: float, age: float = 0.0) -> None:
        now = time.time()
        line = SpendLine(int(now - now % HOUR), SpendKey(tenant="search"), "Own", dollars)
        self.fleet.spend = Spend(now - age, (line,))

    def body(self, name: str) -> dict[str, Any]:
        return self.server.request("GET", resource_path("LLMBudget", self.namespace, name)).body

    def conditions(self, name: str) -> dict[str, tuple[str, str]]:
        return {
            item["type"]: (item["status"], item["reason"]) for item in self.body(name)["status"]["conditions"]
        }


@pytest.fixture
async def setting(kinds: ApiServer, control_plane: ControlPlane, namespace: str) -> AsyncIterator[Setting]:
    client = await KubeClient.connect(control_plane.kubeconfig)
    yield Setting(kinds, client, namespace)
    await client.close()


async def test_before_the_ledger_is_read_a_budget_says_so(setting: Setting) -> None:
    setting.create("all")
    await setting.keeper.start()
    assert setting.conditions("all") == {
        "Ready": ("False", Code.LEDGER_MISSING),
        "SpendUnknown": ("True", Code.LEDGER_MISSING),
    }
    (standing,) = setting.fleet.budgets
    assert standing.unknown is not None


async def test_what_is_spent_is_shown_and_acts_without_another_reading_of_budgets(setting: Setting) -> None:
    setting.create("all", soft={"at": "0.5", "action": "Sleep"})
    setting.spend(4)
    await setting.keeper.start()
    status = setting.body("all")["status"]
    assert (status["spent"], status["share"], status["observedGeneration"]) == ("4", "0.4", 1)
    assert status["periodBegin"] < status["periodEnd"]
    assert setting.conditions("all")["Ready"] == ("True", Code.SPEND_READ)
    changes = setting.changes
    setting.spend(4.5)
    setting.keeper.judge()
    assert setting.changes == changes, "nothing is reached"
    setting.spend(10)
    setting.keeper.judge()
    assert setting.changes == changes + 1
    assert setting.fleet.budgets[0].exhausted
    setting.change("all", amount="10.01")
    await setting.keeper._refresh()
    assert not setting.fleet.budgets[0].exhausted, "raising the amount opens at once"
    assert setting.changes == changes + 2
    assert setting.conditions("all")["SoftLimitReached"] == ("True", Code.SOFT_LIMIT)


async def test_a_ledger_that_stops_is_noticed_without_a_new_one(setting: Setting) -> None:
    setting.create("all")
    setting.spend(1)
    await setting.keeper.start()
    changes = setting.changes
    setting.keeper.judge(time.time() + STALE_AFTER - 5)
    assert setting.changes == changes
    setting.keeper.judge(time.time() + STALE_AFTER + 5)
    assert setting.changes == changes + 1
    assert setting.fleet.budgets[0].unknown is not None


async def test_nothing_is_written_where_nothing_differs(setting: Setting) -> None:
    setting.create("all")
    setting.spend(4)
    await setting.keeper.start()
    version = setting.body("all")["metadata"]["resourceVersion"]
    setting.spend(4.01)
    await setting.keeper._refresh()
    assert setting.body("all")["metadata"]["resourceVersion"] == version
    assert setting.changes == 1
    share = {"budget": "all"}
    assert REGISTRY.get_sample_value("modelyard_budget_spent_ratio", share) == pytest.approx(0.401)
    setting.server.request("DELETE", resource_path("LLMBudget", setting.namespace, "all"))
    await setting.keeper._refresh()
    assert (setting.changes, setting.fleet.budgets) == (2, ())
    assert REGISTRY.get_sample_value("modelyard_budget_spent_ratio", share) is None


async def test_what_was_read_stays_while_the_server_does_not_answer(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting.create("all")
    setting.spend(10)
    await setting.keeper.start()

    async def unreachable(*_: Any, **__: Any) -> Any:
        raise ApiError(0, "Unreachable", "no answer")

    monkeypatch.setattr(KubeClient, "request", unreachable)
    with pytest.raises(ApiError):
        await setting.keeper._refresh()
    setting.keeper.judge()
    assert setting.fleet.budgets[0].exhausted
    assert setting.changes == 1
