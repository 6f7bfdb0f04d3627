"""The stepwise export through TRL 1.13, the last release with a PRM trainer: ``train_stepwise.py DIRECTORY``."""

from __future__ import annotations

import sys
from pathlib import Path

import tiny
import trl
from datasets import load_dataset
from transformers import PrinterCallback, Qwen2ForTokenClassification
from trl.experimental.prm import PRMConfig, PRMTrainer

CHECKED_ROWS = 2000


def main(directory: Path) -> None:
    """Compare TRL's label tokens with our labels, then train two steps."""
    tiny.quiet()
    tokens, scratch = tiny.tokenizer(), str(directory / "trainers")
    rows = load_dataset(str(directory / "stepwise"), cache_dir=f"{scratch}/cache")["train"]
    checked = rows.select(range(min(CHECKED_ROWS, len(rows))))
    for row in checked:
        prepared = PRMTrainer.tokenize_row(row, tokens, "\n", None, None, False, False)
        found = [label for label in prepared["labels"] if label != -100]
        if found != [int(label) for label in row["labels"]]:
            raise SystemExit(f"row {row['row_id']}: label tokens {found}, labels {row['labels']}")
    print(f"trl {trl.__version__}: label tokens equal the labels in {len(checked)} of {len(checked)} rows")
    model = Qwen2ForTokenClassification(tiny.config(tokens, num_labels=2))
    args = PRMConfig(max_length=1024, **tiny.common(scratch))
    trainer = PRMTrainer(model, args=args, train_dataset=rows.select(range(48)), processing_class=tokens)
    trainer.remove_callback(PrinterCallback)
    loss = trainer.train().training_loss
    print(f"{'PRM':24} {len(trainer.train_dataset):3} rows prepared, loss {loss:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
