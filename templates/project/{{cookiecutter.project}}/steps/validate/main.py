"""Check the examples, and split those that pass into a training and an evaluation set.

Checked: the columns, the range of every value, enough examples of every class, no id twice, few
repeated images. Bad data gives exit code 1 and one line of error; the report has the details.

Only an example's id decides which set it is in: the first 64 bits of the id's SHA-256, divided by
2**64, are below the evaluation share or not. So new examples never move old ones to the other set,
and models of different runs are compared on the same evaluation set.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

PIXELS = [f"p{i}" for i in range(64)]
HEADER = ["id", "label", *PIXELS]
CLASSES = [str(digit) for digit in range(10)]
LARGEST = 16.0


def read(path: Path) -> list[list[str]]:
    """The rows below the header; raises ValueError where the columns are others."""
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if header != HEADER:
            wrong = sorted(set(header) ^ set(HEADER))
            raise ValueError(f"the columns are not id,label,p0..p63: see {wrong[:5]}")
        return list(reader)


def in_range(text: str) -> bool:
    try:
        return 0.0 <= float(text) <= LARGEST
    except ValueError:
        return False


def bad_values(rows: list[list[str]]) -> list[str]:
    """What is wrong with single rows, one sentence each."""
    found = []
    for number, row in enumerate(rows, start=2):
        where = f"line {number}"
        if len(row) != len(HEADER):
            found.append(f"{where} has {len(row)} values, not {len(HEADER)}")
            continue
        if not row[0]:
            found.append(f"{where} has no id")
        if row[1] not in CLASSES:
            found.append(f"{where}: label {row[1][:20]!r} is not a digit")
        for name, value in zip(PIXELS, row[2:], strict=True):
            if not in_range(value):
                found.append(f"{where}: {name} is {value[:20]!r}, not in 0 to {LARGEST:g}")
                break
    return found


def check(
    rows: list[list[str]], least: int, min_share: float, max_repeated: float
) -> tuple[dict[str, float], list[str]]:
    """The facts, for people and the gate, and the problems: none where the data is good."""
    problems = bad_values(rows)
    ids = Counter(row[0] for row in rows if row)
    classes = Counter(row[1] for row in rows if len(row) > 1)
    shares = [classes[label] / max(len(rows), 1) for label in CLASSES]
    repeated = len(rows) - len({tuple(row[2:]) for row in rows})
    twice = [name for name, count in ids.items() if count > 1]
    if len(rows) < least:
        problems.append(f"{len(rows)} examples, fewer than {least}")
    for label, share in zip(CLASSES, shares, strict=True):
        if share < min_share:
            problems.append(f"class {label} has {share:.1%} of the examples, under {min_share:.1%}")
    if twice:
        problems.append(f"{len(twice)} ids are there twice, such as {twice[0][:40]!r}")
    if repeated > max_repeated * len(rows):
        problems.append(f"{repeated} images are there twice, over {max_repeated:.1%}")
    facts = {
        "examples": len(rows),
        "classes": sum(1 for label in CLASSES if classes[label]),
        "smallest_class_share": round(min(shares), 6),
        "largest_class_share": round(max(shares), 6),
        "repeated_images": repeated,
        "problems": len(problems),
    }
    return facts, problems


def report(facts: dict[str, float], rows: list[list[str]], problems: list[str]) -> str:
    """The report as Markdown. Values from the data stand in code spans, without backticks."""
    classes = Counter(row[1] for row in rows if len(row) > 1)
    lines = ["# Data report", "", "Not good:" if problems else "All checks passed.", ""]
    lines += ["- `" + problem.replace("`", "'") + "`" for problem in problems[:50]]
    if len(problems) > 50:
        lines.append(f"- and {len(problems) - 50} more")
    lines += ["", "| fact | value |", "| --- | ---: |"]
    lines += [f"| {name.replace('_', ' ')} | {value:g} |" for name, value in facts.items()]
    lines += ["", "| class | examples |", "| --- | ---: |"]
    lines += [f"| {label} | {classes[label]} |" for label in CLASSES]
    return "\n".join(lines) + "\n"


def for_evaluation(name: str, share: float) -> bool:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") < share * 2**64


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def write_table(path: Path, rows: list[list[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([HEADER, *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Check the examples and split them.")
    parser.add_argument("--dataset", type=Path, required=True, help="CSV: id,label,p0..p63")
    parser.add_argument("--test-fraction", type=float, default=0.5, help="evaluation share")
    parser.add_argument("--min-examples", type=int, default=500)
    parser.add_argument("--min-class-share", type=float, default=0.03)
    parser.add_argument("--max-repeated", type=float, default=0.01, help="share of the images")
    parser.add_argument("--report", type=Path, required=True, help="the Markdown report to write")
    parser.add_argument("--metrics", type=Path, required=True, help="the facts, as JSON")
    parser.add_argument("--training-set", type=Path, required=True, help="CSV to write")
    parser.add_argument("--evaluation-set", type=Path, required=True, help="CSV to write")
    parser.add_argument("--executor-output", type=Path, help="where KFP reads metadata")
    args = parser.parse_args()
    if not 0.0 < args.test_fraction < 1.0:
        sys.exit(f"--test-fraction {args.test_fraction:g} is not between 0 and 1")
    try:
        rows = read(args.dataset)
    except (OSError, ValueError, csv.Error) as error:
        sys.exit(f"cannot read {args.dataset}: {error}")
    facts, problems = check(rows, args.min_examples, args.min_class_share, args.max_repeated)
    write(args.report, report(facts, rows, problems))
    write(args.metrics, json.dumps(facts, indent=2) + "\n")
    if args.executor_output:
        # KFP reads an artifact's metadata from this file, and shows it.
        shown = {"artifacts": {"metrics": {"artifacts": [{"metadata": facts}]}}}
        write(args.executor_output, json.dumps(shown))
    if problems:
        more = f" (and {len(problems) - 1} more, in the report)" if len(problems) > 1 else ""
        sys.exit(f"the data is not good: {problems[0]}{more}")
    evaluation = [row for row in rows if for_evaluation(row[0], args.test_fraction)]
    training = [row for row in rows if not for_evaluation(row[0], args.test_fraction)]
    if not evaluation or not training:
        sys.exit(f"--test-fraction {args.test_fraction:g} leaves one part without examples")
    write_table(args.training_set, training)
    write_table(args.evaluation_set, evaluation)
    print(f"{len(rows)} examples passed: {len(training)} to train, {len(evaluation)} to evaluate")


if __name__ == "__main__":
    main()
