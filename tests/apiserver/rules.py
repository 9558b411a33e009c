"""Accepting and rejecting manifests of each cross-field rule."""

from typing import Final

from tests.apiserver.deploymentrules import DEPLOYMENT_RULES
from tests.apiserver.platformrules import PLATFORM_RULES
from tests.apiserver.routerules import ROUTE_RULES

RULE_CASES: Final = (*DEPLOYMENT_RULES, *ROUTE_RULES, *PLATFORM_RULES)
