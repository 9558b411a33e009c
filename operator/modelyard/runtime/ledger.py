"""Writes the ledger: what was used and spent, in ConfigMaps of the gateway's namespace.

Each round takes the readings of the Envoys in and writes the open part in one compare-and-swap. Readings are
cumulative, so a round that fails costs nothing: the next one takes in what it missed. After a conflict, or where it is
not known whether a write arrived, what is written is read again first.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from modelyard.core.ledger.archive import (
    OPEN_NAME,
    Period,
    Step,
    add_up,
    archive_name,
    next_step,
    spend_lines,
)
from modelyard.core.ledger.book import Ledger
from modelyard.core.ledger.codec import (
    Archive,
    LedgerError,
    decode_archive,
    decode_ledger,
    encode_archive,
    encode_ledger,
)
from modelyard.core.ledger.holdings import find_prices
from modelyard.core.ledger.usage import find_new
from modelyard.core.routing import external_key
from modelyard.core.spend import HOUR, NOTHING_ARCHIVED, Archived, Spend, SpendLine
from modelyard.kube.client import ApiError, KubeClient
from modelyard.kube.resources import CONFIG_MAPS
from modelyard.render.ledger import LABEL_LEDGER, LedgerTooLargeError, Part, build_ledger, read_ledger
from modelyard.runtime.fleet import Fleet
from modelyard.runtime.metrics import LEDGER_WRITES
from modelyard.runtime.settings import OperatorSettings
from modelyard.runtime.spendlook import Account, Known, draw_up, sum_up
from modelyard.runtime.spendmetrics import SpendMetrics

logger = logging.getLogger(__name__)

ARCHIVES = f"{LABEL_LEDGER} in (Hour,Day)"
"""Selects the objects of hours and days that are over."""

HELD_INTERVAL = 300.0
"""Seconds after which the ledger is written where nobody used anything and accelerators are only held: what is not
written of that is found again from the age of the pods."""


RESTART_SECONDS = 60.0
"""Age of the ledger up to which a starting operator takes what is written as known until Envoys were read: the time of
a restart, which a budget is overspent by anyway. An older one says nothing of what was spent since."""


GONE_AFTER = 86400.0
"""Seconds after which the counts of an Envoy that is not there are forgotten: they are as large as everything else, and
a rollout of the gateway leaves as many as there are pods. Its name is kept, so that it is not taken for a new one. Only
a process that has looked for it as long forgets it. One that served for a day while nobody could read it, and comes
back, counts from then on."""


class LedgerKeeper:
    """Keeps the ledger, and what budgets read of it."""

    def __init__(
        self,
        client: KubeClient,
        fleet: Fleet,
        settings: OperatorSettings,
        on_spend: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._fleet = fleet
        self._settings = settings
        self._on_spend = on_spend
        self._namespace = settings.render.gateway.namespace
        self._written = Ledger()
        self._version = ""
        """`resourceVersion` of what is written; empty: nothing is."""
        self._loaded = False
        self._seen = 0
        """`Fleet.readings` of the last look."""
        self._complaint = ""
        """Why the last round failed; it is said once."""
        self._started = time.time()
        self._tidied = False
        """Whether the last round worked on archives: then the open part is next, which more depends on."""
        self._hurried = False
        """Whether somebody waits for the next write."""
        self._telling = asyncio.Lock()
        """Held from a look at everything until what comes of it is told: nothing older is told after it."""
        self._metrics = SpendMetrics()
        self._archives: dict[Period, tuple[SpendLine, ...]] = {}
        self._counted: tuple[Period, ...] = ()
        """Those that counted when the last spend was told. None ever changes, so their lines are the same ones."""
        self._archived = NOTHING_ARCHIVED

    async def start(self) -> None:
        """Read what is written. Where that is not possible, nothing is known to be spent until it is."""
        try:
            await self._load()
        except (ApiError, LedgerError) as error:
            logger.warning("The ledger cannot be read, so spending is not known: %s", error)
            return
        # What has been used since is not known before Envoys were read, and they may need a moment to come back. Where
        # nothing is written, nothing was.
        now, until = time.time(), self._written.time
        fresh = not until or now - until <= RESTART_SECONDS
        async with self._telling:
            account = await asyncio.to_thread(sum_up, self._written, tuple(self._archives))
            self._publish(account, max(now, until) if fresh else until)

    async def run(self) -> None:
        """Take in every reading, and write from time to time, until cancelled."""
        due = time.monotonic() + self._settings.ledger_interval
        while True:
            await asyncio.sleep(self._settings.read_interval)
            if time.monotonic() < due and not self._hurried:
                await self.look(time.time())
                continue
            self._hurried = False
            due = time.monotonic() + self._settings.ledger_interval
            try:
                await self.round(time.time())
            except (ApiError, LedgerError, LedgerTooLargeError) as error:
                # Whether a write arrived is not known, and somebody else may have written.
                self._loaded = False
                outcome = "conflict" if isinstance(error, ApiError) and error.status == 409 else "failed"
                LEDGER_WRITES.labels(outcome=outcome).inc()
                if str(error) != self._complaint:
                    logger.warning(
                        "The ledger was not written, the next round takes everything in: %s", error
                    )
                self._complaint = str(error)
                if isinstance(error, ApiError):
                    # Until a round is through, nothing is told of what was read: the next look tries again.
                    due = time.monotonic()
            else:
                self._complaint = ""

    def write(self, node: str) -> bool:
        """Return whether all that was read of an Envoy is written; else it is written at the next reading."""
        last = self._written.nodes.get(node)
        pending = self._fleet.counts.get(node, ())
        done = self._loaded and not any(find_new(last, reading) for reading in pending)
        self._hurried = self._hurried or not done
        return done

    async def look(self, now: float) -> None:
        """Tell budgets what was spent up to the newest reading. After a round that failed, it is not known."""
        async with self._telling:
            spend, until = self._fleet.spend, self._fleet.counted_until
            # What some have told is judged at once, also while another cannot be read.
            news, self._seen = self._seen != self._fleet.readings, self._fleet.readings
            if self._loaded and (spend is None or until > spend.time or news):
                self._publish(await self._draw_up(now), until)

    async def round(self, now: float) -> None:
        """Take in what was read, tell it, and write at most one object.

        Raises ApiError, LedgerError and LedgerTooLargeError; then nothing is lost and the next round begins anew.
        """
        if not self._loaded:
            await self._load()
        readings = dict(self._fleet.counts)
        ledger = (await self._draw_up(now)).ledger
        # Only what is written is settled for everybody.
        step, due = next_step(self._written, self._archives.keys(), now), self._due(ledger)
        if step != Step() and not (due and self._tidied):
            await self._carry_out(step)
            self._tidied = True
        elif due:
            await self._write(ledger)
            self._tidied = False
            for node, taken in readings.items():
                self._drop(node, taken[-1].time)
        async with self._telling:
            # What was known does not become unknown before the Envoys are there again after a restart, and what was
            # told while this was written is not taken back.
            known = self._fleet.spend.time if self._fleet.spend is not None else 0.0
            until = max(self._fleet.counted_until, known)
            self._publish(await self._draw_up(now), until)

    async def _draw_up(self, now: float) -> Account:
        """Return what is written with all that was read since, worked out beside the event loop."""
        fleet = self._fleet
        settled = tuple(item for item in self._written.settled if (item.start, HOUR) not in self._archives)
        known = Known(
            now=now,
            ledger=replace(self._written, settled=settled),
            readings=dict(fleet.counts),
            pods=tuple(fleet.all_pods()),
            accelerators=fleet.accelerators(),
            plans=dict(fleet.plans),
            prices=find_prices(fleet.providers),
            archives=tuple(self._archives),
            forget_before=now - GONE_AFTER if now - self._started > GONE_AFTER else 0.0,
        )
        return await asyncio.to_thread(draw_up, known)

    def _due(self, ledger: Ledger) -> bool:
        """Return whether something is to be written that is not found again after a restart."""
        before, hour = self._written, ledger.hour
        if before.hour is None or hour is None:
            return bool(hour is not None and (hour.uses or hour.held or ledger.nodes))
        if (hour.start, ledger.settled) != (before.hour.start, before.settled):
            return True
        if hour.uses != before.hour.uses or ledger.nodes.keys() != before.nodes.keys():
            return True
        return hour.held != before.hour.held and ledger.time - before.time >= HELD_INTERVAL

    def _publish(self, account: Account, until: float) -> None:
        if account.counted != self._counted:
            # One that is gone by now has become part of a day, which the next look counts.
            filled = [
                (period, lines) for period in account.counted if (lines := self._archives.get(period, ()))
            ]
            self._counted = account.counted
            self._archived = Archived(
                tuple(start for (start, _), _ in filled), tuple(lines for _, lines in filled)
            )
        before = self._fleet.spend
        self._metrics.tell(account.sums, account.holdings, self._targets())
        known = 0.0 if before is None else before.time
        self._fleet.spend = Spend(max(until, known), account.recent, self._archived)
        self._on_spend()

    def _targets(self) -> set[str]:
        """Return what money can be spent on: own deployments and models of providers."""
        providers = self._fleet.providers.items()
        models = {
            external_key(name, model.name) for name, item in providers for model in item.object.spec.models
        }
        return models.union(self._fleet.deployment_keys())

    def _drop(self, node: str, taken: float) -> None:
        """Drop readings that are written now; those that came meanwhile stay."""
        kept = tuple(item for item in self._fleet.counts.get(node, ()) if item.time > taken)
        if kept:
            self._fleet.counts[node] = kept
        else:
            self._fleet.counts.pop(node, None)

    async def _load(self) -> None:
        """Read the open part, and the archives that are not known yet."""
        body = await self._client.get(CONFIG_MAPS, self._namespace, OPEN_NAME)
        if body is None:
            self._written, self._version = Ledger(), ""
        else:
            self._written = decode_ledger(_read(body))
            self._version = body["metadata"]["resourceVersion"]
        self._archives = await self._known_archives() if self._archives else await self._every_archive()
        self._loaded = True

    async def _every_archive(self) -> dict[Period, tuple[SpendLine, ...]]:
        query = {"labelSelector": ARCHIVES}
        found: dict[Period, tuple[SpendLine, ...]] = {}
        async for item in self._client.list_pages(CONFIG_MAPS, query, limit=50, namespace=self._namespace):
            archive = decode_archive(_read(item))
            found[archive.start, archive.seconds] = _remember(archive)
        return found

    async def _known_archives(self) -> dict[Period, tuple[SpendLine, ...]]:
        """Return the archives that are there; only those are read that are not known, because none ever changes."""
        names = await self._client.list_identities(CONFIG_MAPS, self._namespace, ARCHIVES)
        there = {name.removeprefix(f"{self._namespace}/") for name in names}
        found = {period: lines for period, lines in self._archives.items() if archive_name(*period) in there}
        for name in sorted(there - {archive_name(*period) for period in found}):
            body = await self._client.get(CONFIG_MAPS, self._namespace, name)
            # It may be gone by now: hours become days.
            if body is not None:
                archive = decode_archive(_read(body))
                found[archive.start, archive.seconds] = _remember(archive)
        return found

    async def _write(self, ledger: Ledger) -> None:
        """Put the open part in the place of the one that was read. Raises ApiError 409 if that has changed."""
        # With 10,000 keys this takes half a second, and the loop has other things to do.
        text = await asyncio.to_thread(encode_ledger, ledger)
        manifest = build_ledger(OPEN_NAME, self._namespace, "Open", text, self._version)
        if self._version:
            body = await self._client.replace(CONFIG_MAPS, manifest)
        else:
            body = await self._client.create(CONFIG_MAPS, manifest)
        LEDGER_WRITES.labels(outcome="written").inc()
        self._written, self._version = ledger, body["metadata"]["resourceVersion"]

    async def _carry_out(self, step: Step) -> None:
        archive = step.write
        if step.add_up:
            archive = add_up([await self._read_archive(period) for period in step.add_up])
        if archive is not None:
            await self._create(archive)
        for period in step.delete[:1]:
            await self._delete(period)

    async def _create(self, archive: Archive) -> None:
        """Make an archive, unless somebody has made the same."""
        part: Part = "Hour" if archive.seconds == HOUR else "Day"
        name = archive_name(archive.start, archive.seconds)
        manifest = build_ledger(name, self._namespace, part, encode_archive(archive))
        try:
            await self._client.create(CONFIG_MAPS, manifest)
            LEDGER_WRITES.labels(outcome="written").inc()
        except ApiError as error:
            if error.status != 409:
                raise
        self._archives[archive.start, archive.seconds] = _remember(archive)

    async def _read_archive(self, period: Period) -> Archive:
        name = archive_name(*period)
        body = await self._client.get(CONFIG_MAPS, self._namespace, name)
        if body is None:
            raise LedgerError(f"{self._namespace}/{name} is gone")
        return decode_archive(_read(body))

    async def _delete(self, period: Period) -> None:
        name = archive_name(*period)
        body = await self._client.get(CONFIG_MAPS, self._namespace, name)
        if body is not None:
            await self._client.delete(CONFIG_MAPS, self._namespace, name, body["metadata"]["uid"])
        self._archives.pop(period, None)


def _remember(archive: Archive) -> tuple[SpendLine, ...]:
    """Return what budgets need of an archive: nothing of days, which are older than any period of theirs."""
    return spend_lines(archive.start, archive.lines) if archive.seconds == HOUR else ()


def _read(body: dict[str, Any]) -> str:
    try:
        return read_ledger(body)
    except ValueError as error:
        raise LedgerError(f"{body['metadata']['name']}: {error}") from error
