"""Writes train.jsonl from MetaMathQA and test.jsonl from GSM8K into ../data/metamathqa-gsm8k.

Of MetaMathQA the rows of up to 1,300 characters, question, space and answer together, as in PEFT's comparison.
"""

import json
from pathlib import Path

from datasets import load_dataset

LIMIT = 1300  # characters
FOLDER = Path(__file__).parents[1] / "data" / "metamathqa-gsm8k"


def write(name, rows):
    """Write the rows of a split."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.jsonl").open("w", encoding="utf-8") as file:
        for query, response in rows:
            file.write(json.dumps({"query": query, "response": response}, ensure_ascii=False) + "\n")


def main():
    """Load both data sets, and write what is used of them."""
    train = load_dataset("meta-math/MetaMathQA", split="train")
    pairs = ((row["query"], row["response"]) for row in train)
    write("train", (pair for pair in pairs if len(" ".join(pair)) <= LIMIT))
    test = load_dataset("openai/gsm8k", "main", split="test")
    write("test", ((row["question"], row["answer"]) for row in test))


if __name__ == "__main__":
    main()
