"""Which ways of running a deployment there are: every class that it may use, checked for memory and speed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from modelyard.api.acceleratorclass import AcceleratorClass
from modelyard.api.llmdeployment import LLMDeployment
from modelyard.api.meta import Refusal
from modelyard.api.modelprofile import ModelProfile
from modelyard.api.placement import AcceleratorOption
from modelyard.api.quantities import parse_latency
from modelyard.catalog.accelerators import describe
from modelyard.catalog.engines import ImageSettings, accelerator_kind, resolve_image
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.models import find_model
from modelyard.core.fit import DoesNotFit, Fit, check_fit, choose_fit
from modelyard.core.fit import parallelisms as list_parallelisms
from modelyard.core.inventory import find_pool, node_size
from modelyard.core.load import LoadShape, Objective
from modelyard.core.memory import Parallelism, memory_settings
from modelyard.core.modelcheck import check_model
from modelyard.core.perf.learning import SpeedMemory, learned
from modelyard.core.perf.predict import Capacity, largest_capacity
from modelyard.core.perf.prior import prior
from modelyard.core.perf.step import StepTime
from modelyard.core.reasons import Code
from modelyard.core.refusals import explain_misfit, refuse_all, refuse_classes, stand_in_prices
from modelyard.core.snapshot import Snapshot
from modelyard.core.variants import (
    DEFAULT_START_TIME,
    Rejection,
    Variant,
    VariantList,
    expected_start_time,
    variant_name,
)

DEFAULT_REQUESTS_PER_MINUTE = 60
"""Requests per minute and replica where neither the spec nor the model of speed gives any: 1/s, our assumption.
No measurement is behind it: the model of speed gives 17 for an 8B model on one L4 and 789 on one H100, at the default
load and objective, so that slow accelerators start with too few replicas and fast ones with too many."""

MINIMUM_CAPACITY = 1e-3
"""Requests per second that any replica is taken to answer: one in a quarter of an hour, so that nothing divides by
zero."""

COUNTS_PER_CLASS = 3
"""Sizes of a replica that are considered on one class: the smallest that fits, twice and four times that. More
accelerators than needed pay only where the objective is tight, and four times already splits most models eight ways."""


@dataclass(frozen=True, slots=True)
class VariantPolicy:
    """What the list depends on beside the snapshot."""

    images: ImageSettings = field(default_factory=ImageSettings)


def find_profile(deployment: LLMDeployment, profiles: Mapping[str, ModelProfile]) -> ModelProfile | None:
    """Return the model's architecture: from the spec, the catalogue or what was read; None if it is not known."""
    model = deployment.spec.model
    if model.profile is not None:
        return model.profile
    known = find_model(model.source)
    return known.profile if known is not None else profiles.get(model.source)


def find_objective(deployment: LLMDeployment) -> Objective:
    """Return the service objective; the default for a deployment of fixed size."""
    scaling = deployment.spec.scaling
    if scaling is None:
        return Objective()
    return Objective(
        parse_latency(scaling.slo.time_to_first_token), parse_latency(scaling.slo.inter_token_latency)
    )


def expected_shape(deployment: LLMDeployment) -> LoadShape:
    """Return the mean request that the spec expects."""
    load, default = deployment.spec.load, LoadShape()
    if load is None:
        return default
    return LoadShape(
        float(load.input_tokens or default.input_tokens), float(load.output_tokens or default.output_tokens)
    )


@dataclass(frozen=True, slots=True)
class ChoiceMemory:
    """A list of variants, and what it was made from: it takes milliseconds, and decisions come every second."""

    question: tuple[object, ...]
    answer: VariantList | Refusal


def recall_variants(
    deployment: LLMDeployment,
    snapshot: Snapshot,
    shape: LoadShape,
    policy: VariantPolicy,
    speeds: Mapping[str, SpeedMemory],
    memory: ChoiceMemory | None,
) -> ChoiceMemory:
    """Return every way in which the deployment may run, worked out again only if something changed."""
    metadata = deployment.metadata
    question = (
        (metadata.uid, metadata.generation, metadata.name, shape, policy),
        deployment.spec if not metadata.generation else None,
        tuple(sorted(snapshot.accelerators.items(), key=lambda item: item[0])),
        tuple(sorted(snapshot.node_sizes.items())),
        snapshot.profiles.get(deployment.spec.model.source),
        snapshot.spanning.get(metadata.namespace),
        tuple((name, _step(memory)) for name, memory in sorted(speeds.items())),
    )
    if memory is not None and memory.question == question:
        return memory
    return ChoiceMemory(question, list_variants(deployment, snapshot, shape, policy, speeds))


def _step(memory: SpeedMemory) -> tuple[int, int, int]:
    """Return what was learned in steps of a tenth: smaller moves change no capacity."""
    return (
        round(memory.inter_token.logarithm * 10),
        round(memory.first_token.logarithm * 10),
        round(memory.inter_token.variance**0.5 * 10),
    )


def list_variants(
    deployment: LLMDeployment,
    snapshot: Snapshot,
    shape: LoadShape,
    policy: VariantPolicy,
    speeds: Mapping[str, SpeedMemory] | None = None,
) -> VariantList | Refusal:
    """Return every way in which the deployment may run, or why there is none."""
    options = tuple(_options(deployment, snapshot))
    if not options:
        return refuse_classes(deployment, snapshot)
    profile = find_profile(deployment, snapshot.profiles)
    own_images = deployment.spec.engine.name in policy.images.versions
    refusal = check_model(deployment, profile, own_images=own_images)
    if refusal is not None:
        return refusal
    maker = _Maker(deployment, profile, shape, find_objective(deployment), policy, speeds or {})
    variants: list[Variant] = []
    rejected: list[Rejection] = []
    for option, accelerator in options:
        size = snapshot.node_sizes.get(option.class_name) or node_size(accelerator, snapshot.inventory)
        if option.nodes > 1 and (away := snapshot.spanning.get(deployment.metadata.namespace)) is not None:
            rejected.append(Rejection(option.class_name, away))
            continue
        for made in maker.make(option, accelerator, size):
            if isinstance(made, Variant):
                variants.append(made)
            else:
                rejected.append(made)
    if not variants:
        return refuse_all(rejected)
    fast = [variant for variant in variants if variant.meets_objective]
    if fast and len(fast) < len(variants):
        rejected += [
            Rejection(item.label, Refusal(Code.OBJECTIVE_MISSED, item.speed.explain() if item.speed else ""))
            for item in variants
            if not item.meets_objective
        ]
        variants = fast
    return VariantList(stand_in_prices(variants), tuple(rejected), profile)


def _options(
    deployment: LLMDeployment, snapshot: Snapshot
) -> Iterator[tuple[AcceleratorOption, AcceleratorClass]]:
    named = deployment.spec.placement.accelerators
    options = named or tuple(AcceleratorOption(class_name=name) for name in sorted(snapshot.accelerators))
    for option in options:
        accelerator = snapshot.accelerators.get(option.class_name)
        if accelerator is not None:
            yield option, accelerator


def unit_price(accelerator: AcceleratorClass, hardware: Hardware | None, *, spot: bool) -> Decimal | None:
    """Return US dollars per hour and accelerator: the class may state them even where nothing else is known of it."""
    if hardware is not None:
        return hardware.spot if spot else hardware.on_demand
    stated = accelerator.spec.price
    text = None if stated is None else stated.spot if spot else stated.on_demand
    return None if text is None else Decimal(text)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the variants of one deployment."""

    deployment: LLMDeployment
    profile: ModelProfile | None
    shape: LoadShape
    objective: Objective
    policy: VariantPolicy
    speeds: Mapping[str, SpeedMemory]

    def make(
        self, option: AcceleratorOption, accelerator: AcceleratorClass, size: int
    ) -> Iterator[Variant | Rejection]:
        """Yield the variants on one class, or why there are none."""
        name = accelerator.metadata.name
        refusal = self._check_class(option, accelerator)
        if refusal is not None:
            yield Rejection(name, refusal)
            return
        hardware = describe(accelerator)
        for fit in self._fits(option, hardware, size):
            if isinstance(fit, Refusal):
                yield Rejection(name, fit)
                continue
            # Whoever takes back one node of a group takes all of it, so groups are on demand.
            spots = (
                (False, True) if option.nodes == 1 and self._may_be_spot(accelerator, hardware) else (False,)
            )
            for spot in spots:
                yield self._build(option, accelerator, hardware, fit, spot=spot)

    def _check_class(self, option: AcceleratorOption, accelerator: AcceleratorClass) -> Refusal | None:
        engine = self.deployment.spec.engine
        if option.nodes > 1 and accelerator.spec.resource_name is None:
            return Refusal(
                Code.PLACEMENT_CONFLICT,
                f"class {accelerator.metadata.name} has no accelerators, and a replica on CPUs runs on one node: set "
                "placement.accelerators[].nodes to 1",
            )
        kind = accelerator_kind(accelerator.spec.resource_name)
        image = resolve_image(engine.name, engine.version, kind, self.policy.images)
        if isinstance(image, Refusal):
            return image
        for key, value in sorted(self.deployment.spec.placement.node_selector.items()):
            own = accelerator.spec.node_selector.get(key, value)
            if own != value:
                return Refusal(
                    Code.PLACEMENT_CONFLICT,
                    f"placement.nodeSelector wants {key}={value}, but class {accelerator.metadata.name} has "
                    f"{key}={own}: remove it, or choose another class",
                )
        return None

    def _may_be_spot(self, accelerator: AcceleratorClass, hardware: Hardware | None) -> bool:
        priced = unit_price(accelerator, hardware, spot=True) is not None
        return (
            self.deployment.spec.placement.spot is not None and accelerator.spec.spot is not None and priced
        )

    def _fits(
        self, option: AcceleratorOption, hardware: Hardware | None, size: int
    ) -> Iterator[Fit | Parallelism | Refusal]:
        """Yield the sizes of a replica to consider: with their memory, or as they are where that is not known."""
        limit = option.count or size
        if self.profile is None or hardware is None:
            yield Parallelism(option.count or 1, option.nodes, option.nodes)
            return
        settings = memory_settings(self.deployment, self.profile)
        if option.count is not None or limit == 1:
            yield self._best_fit(hardware, limit, size, option.nodes)
            return
        smallest = choose_fit(self.profile, settings, hardware, limit, option.nodes, size)
        if isinstance(smallest, DoesNotFit):
            yield Refusal(Code.DOES_NOT_FIT, explain_misfit(smallest, limit))
            return
        yield smallest
        if option.requests_per_minute is not None:
            # What was measured belongs to one size.
            return
        count = smallest.parallelism.per_node
        for factor in range(1, COUNTS_PER_CLASS):
            larger = count * 2**factor
            if larger > limit:
                return
            fit = self._best_fit(hardware, larger, limit, option.nodes)
            if isinstance(fit, Fit) and fit.parallelism.pipeline == smallest.parallelism.pipeline:
                yield fit

    def _best_fit(self, hardware: Hardware, count: int, size: int, nodes: int) -> Fit | Refusal:
        if self.profile is None:
            raise ValueError("memory is only checked for a model that is known")
        settings = memory_settings(self.deployment, self.profile)
        misses = []
        for parallelism in list_parallelisms(self.profile, count, settings.engine, nodes):
            answer = check_fit(self.profile, settings, hardware, parallelism, size)
            if isinstance(answer, Fit):
                return answer
            misses.append(answer)
        if misses:
            nearest = min(misses, key=lambda miss: (miss.obstacle is not None, miss.missing))
            return Refusal(Code.DOES_NOT_FIT, explain_misfit(nearest, size))
        where = f" of each of {nodes} nodes" if nodes > 1 else ""
        sentence = (
            f"it cannot be split over {count} accelerators{where}: change placement.accelerators[].count"
        )
        sentence += " or nodes" if nodes > 1 else ""
        return Refusal(Code.DOES_NOT_FIT, sentence)

    def _build(
        self,
        option: AcceleratorOption,
        accelerator: AcceleratorClass,
        hardware: Hardware | None,
        fit: Fit | Parallelism,
        *,
        spot: bool,
    ) -> Variant:
        parallelism = fit.parallelism if isinstance(fit, Fit) else fit
        count, nodes = parallelism.accelerators, parallelism.nodes
        name = variant_name(accelerator.metadata.name, count, spot=spot, nodes=nodes)
        known = self._prior(hardware, fit) if isinstance(fit, Fit) else None
        memory = self.speeds.get(name)
        step = learned(known, memory) if known is not None and memory is not None else known
        speed = self._speed(step, fit) if isinstance(fit, Fit) else None
        capacity, basis = self._capacity(option, speed, name)
        unit = unit_price(accelerator, hardware, spot=spot)
        price = None if unit is None else unit * count
        return Variant(
            name=name,
            accelerator=accelerator,
            parallelism=parallelism,
            spot=spot,
            pool=find_pool(
                self.deployment, accelerator, spot=spot, nodes=nodes, per_node=parallelism.per_node
            ),
            capacity=capacity,
            price=price,
            hardware=hardware,
            fit=fit if isinstance(fit, Fit) else None,
            prior=known,
            step=step,
            objective=self.objective,
            speed=None if option.requests_per_minute is not None else speed,
            basis=basis,
            start_time=expected_start_time(fit) if isinstance(fit, Fit) else DEFAULT_START_TIME,
        )

    def _prior(self, hardware: Hardware | None, fit: Fit) -> StepTime | None:
        if self.profile is None or hardware is None:
            return None
        engine = self.deployment.spec.engine
        cache_type = engine.parameters.get("kv-cache-dtype", engine.parameters.get("cache-type-k"))
        return prior(self.profile, fit.settings.weights, hardware, fit.parallelism, cache_type, engine.name)

    def _speed(self, step: StepTime | None, fit: Fit) -> Capacity | None:
        if step is None:
            return None
        most = fit.settings.max_sequences or 1
        held = fit.requests_held(self.shape)
        return largest_capacity(step, self.shape, self.objective, held, most, fit.context_length)

    def _capacity(self, option: AcceleratorOption, speed: Capacity | None, name: str) -> tuple[float, str]:
        if option.requests_per_minute is not None:
            return option.requests_per_minute / 60, "as declared"
        if speed is None:
            return DEFAULT_REQUESTS_PER_MINUTE / 60, "assumed: set requestsPerMinute to what you measured"
        memory = self.speeds.get(name)
        basis = speed.explain() + (f"; {memory.explain()}" if memory is not None and memory.readings else "")
        if speed.feasible:
            return speed.requests_per_second, basis
        # The best that it can do, one request at a time: it misses the objective, and the condition says so.
        return max(speed.performance.requests_per_second, MINIMUM_CAPACITY), basis
