"""Writes a Llama of two layers with random weights, a tokenizer and a LoRA adapter into a cache of the Hub.

Run by vLLM's own Python: `python make_model.py HUB_CACHE`. The layout is that of
https://huggingface.co/docs/huggingface_hub/guides/manage-cache, so that `hf://` sources are found without a network.
"""

# mypy: disable-error-code="import-not-found"

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

REVISION = "0" * 40
"""Name of the only commit of each repository."""
WIDTH, LAYERS, RANK = 64, 2, 8
"""Numbers of a vector, layers, and rank of the adapter. The widths are the least that vLLM's CPU kernels take: heads of
32 numbers (`CPUAttentionBackend.get_supported_head_sizes`)."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TEXT = [
    f"The operator places model {number} on the cheapest accelerator that holds it." for number in range(200)
]


def make_repository(cache: Path, name: str) -> Path:
    """Make the folder of a repository's files in the cache, and return it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    files = repository / "snapshots" / REVISION
    files.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(REVISION)
    return files


def make_model(files: Path) -> None:
    """Write the model and its tokenizer."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 (no password)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1024,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(files)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(files)


def make_adapter(files: Path, base: str) -> None:
    """Write a LoRA adapter of the query projections, in the form of PEFT."""
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (files / "adapter_config.json").write_text(json.dumps(config))
    prefix = "base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.weight"
    weights = {}
    for layer in range(LAYERS):
        weights[prefix.format(layer, "A")] = torch.randn(RANK, WIDTH, dtype=torch.bfloat16)
        weights[prefix.format(layer, "B")] = torch.randn(WIDTH, RANK, dtype=torch.bfloat16)
    save_file(weights, files / "adapter_model.safetensors")


def main() -> None:
    """Write both repositories."""
    cache = Path(sys.argv[1])
    make_model(make_repository(cache, "contract/tiny"))
    for number in (1, 2):
        make_adapter(make_repository(cache, f"contract/adapter-{number}"), "contract/tiny")


if __name__ == "__main__":
    main()
