"""Why: reason codes for machines, sentences for people."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Reason:
    """A stable code for machines and a sentence for people. Conditions, events and metrics carry both."""

    code: str
    message: str


class Code:
    """Reason codes. They are API: documented in docs/decisions.md, never renamed."""

    SUSPENDED: Final = "Suspended"
    FIXED: Final = "FixedReplicas"
    EXTERNAL: Final = "ExternalActuator"
    INITIAL: Final = "InitialSize"
    AT_MINIMUM: Final = "AtMinimum"
    AT_MAXIMUM: Final = "AtMaximum"
    OFFERED_LOAD: Final = "OfferedLoad"
    SCHEDULED: Final = "Scheduled"
    STABILIZING: Final = "Stabilizing"
    NO_DATA: Final = "NoData"
    WOKEN: Final = "Woken"
    IDLE: Final = "Idle"
    SCALED_TO_ZERO: Final = "ScaledToZero"
    SERVING: Final = "Serving"
    STARTING: Final = "Starting"
    LOADING: Final = "Loading"
    WAITING_FOR_GPU: Final = "WaitingForGPU"
    UNSCHEDULABLE: Final = "Unschedulable"
    IMAGE_PULL_FAILED: Final = "ImagePullFailed"
    ENGINE_FAILED: Final = "EngineFailed"
    START_TIMEOUT: Final = "StartTimeout"
    NOT_PROGRESSING: Final = "Complete"
    SCALING: Final = "Scaling"
    ACCELERATOR_NOT_FOUND: Final = "AcceleratorClassNotFound"
    DOES_NOT_FIT: Final = "DoesNotFit"
    UNSUPPORTED_SOURCE: Final = "UnsupportedSource"
    INVALID_PARAMETER: Final = "InvalidParameter"
    PLACEMENT_CONFLICT: Final = "PlacementConflict"
    PREFERRED: Final = "Preferred"
    CAPACITY_MISSING: Final = "CapacityMissing"
    OBJECTIVE_MISSED: Final = "ObjectiveMissed"
    NAME_CONFLICT: Final = "NameConflict"
    SERVED_NAME_CONFLICT: Final = "ServedNameConflict"
    ROUTED: Final = "Routed"
    ROUTED_BY_ROUTE: Final = "RoutedByLLMRoute"
    TARGET_NOT_FOUND: Final = "TargetNotFound"
    DATA_POLICY_VIOLATED: Final = "DataPolicyViolated"
    QUALITY_TOO_LOW: Final = "QualityTooLow"
    PROVIDER_NOT_READY: Final = "ProviderNotReady"
    CONFIGURED: Final = "Configured"
    SECRET_NOT_FOUND: Final = "SecretNotFound"  # noqa: S105  (a reason, no password)
    SECRET_INVALID: Final = "SecretInvalid"  # noqa: S105  (a reason, no password)
    SECRET_FORBIDDEN: Final = "SecretForbidden"  # noqa: S105  (a reason, no password)
    CERTIFICATE_EXPIRED: Final = "CertificateExpired"
    CERTIFICATE_NOT_YET_VALID: Final = "CertificateNotYetValid"
    KEY_CONFLICT: Final = "KeyConflict"
    INVALID: Final = "Invalid"
    DEMAND_READ: Final = "DemandRead"
    SCALER_ACTIVE: Final = "ScalerActive"
    SCALER_PENDING: Final = "ScalerPending"
    SCALER_FAILING: Final = "ScalerFailing"
    SCALER_FORBIDDEN: Final = "ScalerForbidden"
    SCALER_CONFLICT: Final = "ScalerConflict"
    KEDA_MISSING: Final = "KedaMissing"
    METRICS_ADAPTER_MISSING: Final = "MetricsAdapterMissing"
    METRICS_ADAPTER_FAILING: Final = "MetricsAdapterFailing"
    BUDGET_LIMITED: Final = "BudgetLimited"
    SPEND_READ: Final = "SpendRead"
    LEDGER_MISSING: Final = "LedgerMissing"
    LEDGER_STALE: Final = "LedgerStale"
    SCOPE_NOT_FOUND: Final = "ScopeNotFound"
    AMOUNT_SPENT: Final = "AmountSpent"
    AMOUNT_LEFT: Final = "AmountLeft"
    SOFT_LIMIT: Final = "SoftLimitActs"
    BELOW_SOFT_LIMIT: Final = "BelowSoftLimit"
    NOT_STALLED: Final = "NotStalled"
