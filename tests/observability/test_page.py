"""The types that Grafana publishes, against the dashboards and the sources of the page that draws them."""

from pathlib import Path

from dev.dashboards.page import check_types


def test_dashboards_and_page_agree_with_grafanas_types(tmp_path: Path) -> None:
    check_types(tmp_path, print)
