"""What must hold of the memory arithmetic for every model, setting and accelerator."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from modelyard.api.modelprofile import ModelProfile
from modelyard.catalog.hardware import Hardware
from modelyard.catalog.quantization import FORMATS
from modelyard.core.fit import DoesNotFit, Fit, MemorySettings, check_fit, choose_fit, parallelisms
from modelyard.core.load import LoadShape
from modelyard.core.memory import GIB, Parallelism, sequence_bytes

formats = st.sampled_from([FORMATS[name] for name in ("bf16", "fp8", "awq", "mxfp4", "q4-k-m", "q8-0")])
hardwares = st.builds(
    Hardware,
    name=st.sampled_from(["A100-80GB-SXM", "other"]),
    memory=st.integers(GIB, 300 * GIB),
    partition=st.booleans(),
)


@st.composite
def profiles(draw: st.DrawFn) -> ModelProfile:
    """Models from 30 million to a trillion parameters, of every attention kind."""
    kv_heads = draw(st.sampled_from([1, 2, 4, 8]))
    heads = kv_heads * draw(st.integers(1, 16))
    hidden, layers = heads * draw(st.sampled_from([64, 96, 128])), draw(st.integers(1, 100))
    vocabulary = draw(st.integers(1000, 260_000))
    kind = draw(st.sampled_from(["Full", "SlidingWindow", "MultiHeadLatent"]))
    return ModelProfile(
        parameters=2 * vocabulary * hidden + layers * draw(st.integers(4, 40)) * hidden**2 + 1_000_000,
        layers=layers,
        hidden_size=hidden,
        attention_heads=heads,
        key_value_heads=kv_heads,
        vocabulary_size=vocabulary,
        context_length=draw(st.integers(128, 1_000_000)),
        attention=kind,
        sliding_window=draw(st.integers(16, 8192)) if kind == "SlidingWindow" else None,
        sliding_layers=draw(st.none() | st.integers(1, layers)) if kind == "SlidingWindow" else None,
        latent_dimension=draw(st.integers(64, 1024)) if kind == "MultiHeadLatent" else None,
        tied_embeddings=draw(st.booleans()),
    )


settings_of = st.builds(
    MemorySettings,
    engine=st.sampled_from(["vLLM", "LlamaCpp"]),
    weights=formats,
    key_bits=st.sampled_from([16.0, 8.5, 8.0, 4.5]),
    value_bits=st.sampled_from([16.0, 8.5, 8.0, 4.5]),
    memory_share=st.floats(0.3, 1.0),
    context_length=st.none() | st.integers(128, 1_000_000),
    max_batched_tokens=st.none() | st.integers(1, 20_000),
    max_sequences=st.none() | st.integers(1, 1024),
    adapters=st.integers(0, 4),
    adapter_rank=st.sampled_from([8, 16, 64]),
    cuda_graphs=st.booleans(),
)


@st.composite
def ways(draw: st.DrawFn, profile: ModelProfile, settings: MemorySettings) -> Parallelism:
    """A way that the engine offers."""
    found = parallelisms(profile, draw(st.sampled_from([1, 2, 3, 4, 8])), settings.engine)
    return draw(st.sampled_from(found)) if found else Parallelism()


@given(st.data(), profiles(), settings_of, hardwares)
def test_a_fit_stays_within_memory(
    data: st.DataObject, profile: ModelProfile, settings: MemorySettings, hardware: Hardware
) -> None:
    fit = check_fit(profile, settings, hardware, data.draw(ways(profile, settings)))
    if isinstance(fit, Fit):
        assert min(fit.weights, fit.overhead, fit.cache) > 0
        assert fit.weights + fit.overhead + fit.cache <= fit.budget <= hardware.memory
        assert fit.sequence_cache(fit.context_length) * fit.reserved_sequences <= fit.cache
        assert 0 < fit.context_length <= profile.context_length
        assert fit.context_length <= fit.cache_tokens
        assert fit.sequences(fit.context_length) >= 1
    else:
        assert fit.obstacle is not None or fit.missing > 0


@given(st.data(), profiles(), settings_of, hardwares, st.integers(128, 1_000_000), st.integers(1, 2000))
def test_a_longer_context_never_makes_room_for_more_requests(
    data: st.DataObject,
    profile: ModelProfile,
    settings: MemorySettings,
    hardware: Hardware,
    longer: int,
    tokens: int,
) -> None:
    way = data.draw(ways(profile, settings))
    shorter = data.draw(st.integers(128, longer))
    settings = replace(settings, engine="vLLM")
    small = check_fit(profile, replace(settings, context_length=shorter), hardware, way)
    large = check_fit(profile, replace(settings, context_length=longer), hardware, way)
    shape = LoadShape(tokens, data.draw(st.integers(1, 2000)))
    if isinstance(large, Fit):
        assert isinstance(small, Fit)
        assert small.requests_held(shape) == large.requests_held(shape)
        assert small.sequences(tokens) == large.sequences(tokens)


@given(st.data(), profiles(), settings_of, hardwares, st.integers(1, 50_000), st.integers(1, 50_000))
def test_requests_that_are_held_have_room(
    data: st.DataObject,
    profile: ModelProfile,
    settings: MemorySettings,
    hardware: Hardware,
    prompt: int,
    answer: int,
) -> None:
    settings = replace(settings, engine="vLLM")
    fit = check_fit(profile, settings, hardware, data.draw(ways(profile, settings)))
    if isinstance(fit, Fit):
        held = fit.requests_held(LoadShape(prompt, answer))
        assert (held > 0) == (fit.sequence_cache(prompt + answer) <= fit.cache)
        if held:
            assert fit.sequence_cache(prompt + answer // 2) * held <= fit.cache


@given(st.data(), profiles(), settings_of, hardwares, st.integers(1, 100 * GIB))
def test_more_memory_never_makes_it_not_fit(
    data: st.DataObject, profile: ModelProfile, settings: MemorySettings, hardware: Hardware, more: int
) -> None:
    # Beyond 70 GiB vLLM takes larger batches by default, which is a choice of its own: it is fixed here.
    settings = settings.resolve(hardware)
    way = data.draw(ways(profile, settings))
    fit = check_fit(profile, settings, hardware, way)
    larger = check_fit(profile, settings, replace(hardware, memory=hardware.memory + more), way)
    if isinstance(fit, Fit):
        assert isinstance(larger, Fit)
        assert larger.context_length >= fit.context_length
        assert larger.cache >= fit.cache
    elif isinstance(larger, DoesNotFit):
        assert larger.missing <= fit.missing


@given(profiles(), settings_of, hardwares, st.integers(0, 10**6), st.integers(0, 10**6))
def test_longer_sequences_never_take_less(
    profile: ModelProfile, settings: MemorySettings, hardware: Hardware, one: int, other: int
) -> None:
    resolved, (short, long) = settings.resolve(hardware), sorted((one, other))
    assert sequence_bytes(profile, resolved, Parallelism(), short) <= sequence_bytes(
        profile, resolved, Parallelism(), long
    )


@given(st.data(), profiles(), settings_of, hardwares)
def test_every_remedy_helps(
    data: st.DataObject, profile: ModelProfile, settings: MemorySettings, hardware: Hardware
) -> None:
    answer = check_fit(profile, settings, hardware, data.draw(ways(profile, settings)))
    if isinstance(answer, DoesNotFit):
        for remedy in answer.remedies:
            assert remedy.sentence in answer.reason()
            assert isinstance(check_fit(profile, remedy.settings, hardware, remedy.parallelism), Fit), remedy


@given(profiles(), settings_of, hardwares, st.integers(1, 8))
def test_the_chosen_number_is_the_smallest_in_its_order(
    profile: ModelProfile, settings: MemorySettings, hardware: Hardware, limit: int
) -> None:
    answer = choose_fit(profile, settings, hardware, limit)
    fitting = {
        number
        for number in range(1, limit + 1)
        for way in parallelisms(profile, number, settings.engine)
        if isinstance(check_fit(profile, settings, hardware, way), Fit)
    }
    if isinstance(answer, DoesNotFit):
        assert not fitting
    else:
        powers = fitting & {1, 2, 4, 8}
        assert answer.parallelism.accelerators == min(powers or fitting)
