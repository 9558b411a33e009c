"""A model's architecture: the numbers that memory and speed follow from.

The catalogue holds one for each well-known model, `config.json` gives it for any other, and a user may write it into
the spec (`model.profile`) where neither can be reached.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from modelyard.api.meta import ApiModel, Rule

Parameters = Annotated[int, Field(ge=1_000_000, le=100_000_000_000_000)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Tokens = Annotated[int, Field(ge=1, le=100_000_000)]


class ModelProfile(ApiModel):
    """The numbers of `config.json` and of the weight files that decide memory and speed."""

    parameters: Parameters = Field(description="All parameters, embeddings and every expert included.")
    active_parameters: Parameters | None = Field(
        default=None,
        description="Parameters used for one token, of a mixture of experts. Default: all.",
    )
    layers: Count
    hidden_size: Count
    attention_heads: Count
    key_value_heads: Count | None = Field(default=None, description="Default: attentionHeads.")
    head_dimension: Count | None = Field(default=None, description="Default: hiddenSize / attentionHeads.")
    vocabulary_size: Count
    context_length: Tokens = Field(description="Longest prompt plus answer that the model was made for.")
    attention: Literal["Full", "SlidingWindow", "MultiHeadLatent"] = Field(
        default="Full",
        description="Full keeps keys and values of every token; SlidingWindow only of the last slidingWindow tokens, "
        "in slidingLayers of the layers; MultiHeadLatent keeps one compressed vector for all heads.",
    )
    sliding_window: Tokens | None = None
    sliding_layers: Count | None = Field(
        default=None, description="Layers with the window, of SlidingWindow. Default: all."
    )
    latent_dimension: Count | None = Field(
        default=None, description="Values kept for each token and layer, of MultiHeadLatent."
    )
    experts: Count | None = Field(default=None, description="Routed experts of each expert layer.")
    active_experts: Count | None = Field(default=None, description="Routed experts used for one token.")
    tied_embeddings: bool = Field(
        default=False, description="True: the output layer shares the input embeddings' weights."
    )
    quantization: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+$", max_length=32)] | None = (
        Field(default=None, description="How the published weights are quantised. Default: bf16.")
    )

    RULES: ClassVar[tuple[Rule["ModelProfile"], ...]] = (
        Rule(
            name="profile-active-parameters",
            cel="!has(self.activeParameters) || self.activeParameters <= self.parameters",
            message="activeParameters must not be above parameters: parameters counts every expert",
            holds=lambda profile: (profile.active_parameters or 0) <= profile.parameters,
            field_path=".activeParameters",
        ),
        Rule(
            name="profile-key-value-heads",
            cel="!has(self.keyValueHeads) || (self.keyValueHeads <= self.attentionHeads "
            "&& self.attentionHeads % self.keyValueHeads == 0)",
            message="keyValueHeads must divide attentionHeads",
            holds=lambda profile: profile.attention_heads % (profile.key_value_heads or 1) == 0,
            field_path=".keyValueHeads",
        ),
        Rule(
            name="profile-latent-dimension",
            cel="self.attention != 'MultiHeadLatent' || has(self.latentDimension)",
            message="attention MultiHeadLatent needs latentDimension: kv_lora_rank + qk_rope_head_dim of config.json",
            holds=lambda profile: (
                profile.attention != "MultiHeadLatent" or profile.latent_dimension is not None
            ),
            field_path=".latentDimension",
        ),
        Rule(
            name="profile-sliding-window",
            cel="self.attention != 'SlidingWindow' || has(self.slidingWindow)",
            message="attention SlidingWindow needs slidingWindow: sliding_window of config.json",
            holds=lambda profile: profile.attention != "SlidingWindow" or profile.sliding_window is not None,
            field_path=".slidingWindow",
        ),
        Rule(
            name="profile-sliding-layers",
            cel="!has(self.slidingLayers) || self.slidingLayers <= self.layers",
            message="slidingLayers must not be above layers",
            holds=lambda profile: (profile.sliding_layers or 0) <= profile.layers,
            field_path=".slidingLayers",
        ),
        Rule(
            name="profile-experts",
            cel="has(self.experts) == has(self.activeExperts) "
            "&& (!has(self.experts) || self.activeExperts <= self.experts)",
            message="set experts and activeExperts together, with activeExperts not above experts",
            holds=lambda profile: (
                (profile.experts is None) == (profile.active_experts is None)
                and (profile.active_experts or 0) <= (profile.experts or 0)
            ),
        ),
    )

    @property
    def active(self) -> int:
        """Parameters used for one token."""
        return self.active_parameters or self.parameters

    @property
    def kv_heads(self) -> int:
        """Key-value heads of each layer."""
        return self.key_value_heads or self.attention_heads

    @property
    def head_size(self) -> int:
        """Dimension of one head."""
        return self.head_dimension or self.hidden_size // self.attention_heads
