"""The ledger as it stands in a cluster, read once and only read."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from modelyard.cli.kubeconfig import Access
from modelyard.core.ledger.archive import OPEN_NAME, select_counted
from modelyard.core.ledger.book import Ledger, open_lines
from modelyard.core.ledger.codec import Archive, decode_archive, decode_ledger
from modelyard.core.ledger.settle import Line
from modelyard.core.spend import HOUR
from modelyard.kube.client import KubeClient
from modelyard.kube.resources import CONFIG_MAPS
from modelyard.render.ledger import LABEL_LEDGER, read_ledger

_AGO = re.compile(r"([0-9]{1,4})([hdw])")
_UNITS = {"h": HOUR, "d": 24 * HOUR, "w": 7 * 24 * HOUR}


@dataclass(frozen=True, slots=True)
class LedgerView:
    """Everything that is written."""

    time: float
    """Unix time up to which it is complete; 0 where nothing is written."""
    periods: tuple[tuple[int, tuple[Line, ...]], ...]
    """Start and lines of each hour and day, oldest first."""


async def read_view(access: Access, namespace: str) -> LedgerView:
    """Return the ledger in a namespace.

    Raises ApiError where it cannot be read, and LedgerError for what is no ledger of this version.
    """
    client = await KubeClient.connect(access.files, access.context)
    try:
        # Archives after the open part: what was settled in between is in both, and counted once.
        body = await client.get(CONFIG_MAPS, namespace, OPEN_NAME)
        ledger = Ledger() if body is None else decode_ledger(read_ledger(body))
        query = {"labelSelector": f"{LABEL_LEDGER} in (Hour,Day)"}
        pages = client.list_pages(CONFIG_MAPS, query, limit=100, namespace=namespace)
        archives = [decode_archive(read_ledger(item)) async for item in pages]
    finally:
        await client.close()
    return build_view(ledger, archives)


def build_view(ledger: Ledger, archives: list[Archive]) -> LedgerView:
    """Return everything that is written, each thing once."""
    known = {(archive.start, archive.seconds): archive.lines for archive in archives}
    periods: dict[int, list[Line]] = {}
    for period in select_counted(known, ledger):
        periods.setdefault(period[0], []).extend(known[period])
    for start, line in open_lines(ledger):
        periods.setdefault(start, []).append(line)
    return LedgerView(ledger.time, tuple((start, tuple(periods[start])) for start in sorted(periods)))


def parse_moment(text: str, now: float) -> float:
    """Return a moment as Unix time: so long ago (`36h`, `7d`, `2w`), or a date or time of RFC 3339, by default of UTC.

    Raises ValueError for any other form.
    """
    if ago := _AGO.fullmatch(text):
        return now - int(ago[1]) * _UNITS[ago[2]]
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"{text!r} is no moment: write 36h, 7d, 2w, 2026-11-30 or 2026-11-30T12:00:00Z"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
