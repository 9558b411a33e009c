"""The accounts of tenants that have limits: one book for all gateways, because all of them ask this process."""

import time
from collections.abc import Callable, Mapping

from modelyard.core.limits.account import (
    Account,
    Limits,
    Verdict,
    admit,
    change_limits,
    charge,
    open_account,
)
from modelyard.runtime.metrics import LIMITED_REQUESTS, LIMITED_TOKENS


class LimitBook:
    """What tenants have used. It is lost with the process: then every tenant may use one minute's worth anew."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._limits: dict[str, Limits] = {}
        self._accounts: dict[str, Account] = {}
        self._refused: dict[str, set[str]] = {}
        """Limits that have a series, by tenant."""
        self._charged: set[str] = set()
        """Tenants that have a series of tokens."""

    def set_limits(self, limits: Mapping[str, Limits]) -> None:
        """Take over the limits of all tenants, by name. What they have used stays used."""
        if limits == self._limits:
            return
        for name in self._limits.keys() - limits.keys():
            self._remove_series(name)
        now = self._clock()
        self._accounts = {
            name: change_limits(self._accounts[name], wanted, now)
            if name in self._accounts
            else open_account(wanted, now)
            for name, wanted in limits.items()
        }
        self._limits = dict(limits)

    def _remove_series(self, tenant: str) -> None:
        """Take away the figures of a tenant that is gone or has no limits any more."""
        for limit in self._refused.pop(tenant, set()):
            LIMITED_REQUESTS.remove(tenant, limit)
        if tenant in self._charged:
            LIMITED_TOKENS.remove(tenant)
            self._charged.discard(tenant)

    def admit(self, tenant: str) -> Verdict:
        """Decide on a request. A tenant without limits (any more) is answered."""
        account = self._accounts.get(tenant)
        if account is None:
            return Verdict()
        self._accounts[tenant], verdict = admit(account, self._clock())
        if verdict.refused_by is not None:
            LIMITED_REQUESTS.labels(tenant, verdict.refused_by).inc()
            self._refused.setdefault(tenant, set()).add(verdict.refused_by)
        return verdict

    def charge(self, tenant: str, tokens: int) -> None:
        """Take what an answer has used."""
        account = self._accounts.get(tenant)
        if account is not None:
            self._accounts[tenant] = charge(account, tokens, self._clock())
            LIMITED_TOKENS.labels(tenant).inc(tokens)
            self._charged.add(tenant)
