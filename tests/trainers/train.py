"""Two steps of SFT, DPO, Reward, KTO and GRPO on the exports as they are: ``train.py DIRECTORY``."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import tiny
import torch
import transformers
import trl
from datasets import load_dataset
from transformers import PrinterCallback, Qwen2ForCausalLM, Qwen2ForSequenceClassification
from trl import (
    DPOConfig,
    DPOTrainer,
    GRPOConfig,
    GRPOTrainer,
    KTOConfig,
    KTOTrainer,
    RewardConfig,
    RewardTrainer,
    SFTConfig,
    SFTTrainer,
)


def train(name: str, trainer: Any) -> None:
    """Train two steps and print what came of it; a loss that is no number ends the program."""
    trainer.remove_callback(PrinterCallback)
    loss = trainer.train().training_loss
    if not math.isfinite(loss):
        raise SystemExit(f"{name}: loss is {loss}")
    columns = ", ".join(trainer.train_dataset.column_names)
    print(f"{name:24} {len(trainer.train_dataset):3} rows prepared, loss {loss:.3f}; columns {columns}", flush=True)


def length(completions: list[Any], session_id: list[str], **_: Any) -> list[float]:
    """A reward for GRPO; it sees the extra columns of the rows."""
    assert len(session_id) == len(completions)
    return [float(len(completion[0]["content"])) for completion in completions]


def main(directory: Path) -> None:
    """Run every trainer; any exception is the failure of the check."""
    tiny.quiet()
    tokens, scratch = tiny.tokenizer(), str(directory / "trainers")
    common, saved = tiny.common(scratch), f"{scratch}/model"
    Qwen2ForCausalLM(tiny.config(tokens)).save_pretrained(saved)
    tokens.save_pretrained(saved)
    print(f"trl {trl.__version__}, transformers {transformers.__version__}, torch {torch.__version__}")

    def rows(name: str, count: int = 48) -> dict[str, Any]:
        loaded = load_dataset(str(directory / name), cache_dir=f"{scratch}/cache")["train"]
        return {"train_dataset": loaded.select(range(min(count, len(loaded)))), "processing_class": tokens}

    def model() -> Qwen2ForCausalLM:
        return Qwen2ForCausalLM(tiny.config(tokens))

    for name, options in (
        ("", {}),
        (", assistant_only_loss", {"assistant_only_loss": True}),
        (", packing", {"packing": True}),
    ):
        train(f"SFT{name}", SFTTrainer(model(), args=SFTConfig(max_length=512, **options, **common), **rows("sft")))
    train("DPO", DPOTrainer(saved, args=DPOConfig(max_length=512, **common), **rows("preferences")))
    scorer = Qwen2ForSequenceClassification(tiny.config(tokens, num_labels=1))
    train(
        "Reward, with margin",
        RewardTrainer(scorer, args=RewardConfig(max_length=2048, **common), **rows("preferences")),
    )
    for name in ("unpaired", "preferences"):
        train(f"KTO, {name}", KTOTrainer(saved, args=KTOConfig(max_length=512, **common), **rows(name)))
    grpo = GRPOConfig(max_completion_length=4, num_generations=2, **common)
    train("GRPO", GRPOTrainer(model(), reward_funcs=length, args=grpo, **rows("prompts", 8)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
