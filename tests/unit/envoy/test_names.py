"""Names survive their way through headers and stat names."""

import re
from urllib.parse import unquote

from hypothesis import given
from hypothesis import strategies as st

from modelyard.render.envoy.names import decode_stat, encode_model, encode_stat, model_info_key, model_key

TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(TEXT)
def test_model_names_round_trip_and_are_safe_in_headers(name):
    encoded = encode_model(name)
    assert unquote(encoded) == name
    assert re.fullmatch(r"[A-Za-z0-9._~/:@%-]*", encoded)


@given(TEXT)
def test_stat_names_round_trip_without_special_characters(name):
    encoded = encode_stat(name)
    assert decode_stat(encoded) == name
    assert re.fullmatch(r"[A-Za-z0-9/_-]*", encoded)


@given(TEXT, TEXT)
def test_keys_of_different_models_differ(one, other):
    assert (model_key(one) == model_key(other)) == (one == other)
    assert model_key(one) != model_info_key(other)
