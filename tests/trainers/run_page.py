"""The programs of docs/TRAINING.md that need torch: ``run_page.py DIRECTORY``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tiny
from transformers import Qwen2ForCausalLM

PAGE = Path(__file__).parents[2] / "docs" / "TRAINING.md"


def main(directory: Path) -> None:
    """Run each program as it stands on the page."""
    tiny.quiet()
    tokens, saved = tiny.tokenizer(), str(directory / "trainers" / "model")
    Qwen2ForCausalLM(tiny.config(tokens)).save_pretrained(saved)
    tokens.save_pretrained(saved)
    names = {"DIRECTORY": str(directory / "preferences"), "MODEL": saved, "TOKENIZER": tokens}
    programs = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
    wanted = [program for program in programs if "torch" in program or "trl" in program]
    for program in wanted:
        exec(compile(program, str(PAGE), "exec"), {**names, "__name__": "page"})
    print(f"{len(wanted)} programs of docs/TRAINING.md ran")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
