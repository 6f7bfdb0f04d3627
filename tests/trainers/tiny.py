"""A model of a few thousand weights and a tokenizer of bytes, both built here: nothing is downloaded."""

from __future__ import annotations

import os
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}

import datasets
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config

TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def quiet() -> None:
    """Same numbers every time, and no progress bars."""
    torch.manual_seed(0)
    datasets.disable_progress_bars()
    transformers.logging.set_verbosity_error()


def tokenizer() -> PreTrainedTokenizerFast:
    """One token for every byte."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(bytes_)}, merges=[]))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokens.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token="<|im_end|>", pad_token="<|pad|>", additional_special_tokens=["<|im_start|>"]
    )
    fast.chat_template = TEMPLATE
    return fast


def config(tokens: PreTrainedTokenizerFast, **changes: Any) -> Qwen2Config:
    """Two layers, sixteen dimensions."""
    return Qwen2Config(
        vocab_size=len(tokens), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=4096, pad_token_id=tokens.pad_token_id,
        eos_token_id=tokens.eos_token_id, bos_token_id=None, **changes,
    )  # fmt: skip


def common(output: str) -> dict[str, Any]:
    """Two steps on the CPU, nothing written."""
    return {
        "per_device_train_batch_size": 2, "max_steps": 2, "report_to": [], "logging_strategy": "no",
        "save_strategy": "no", "use_cpu": True, "bf16": False, "output_dir": output, "disable_tqdm": True,
    }  # fmt: skip
