"""Collect the examples into one CSV file: `id,label,p0..p63`.

The source is `digits`, a CSV file, or a folder of CSV files. `digits` are the handwritten digits
that come with scikit-learn: 1,797 images of 8 by 8 pixels, each from 0 (paper) to 16 (ink), the
test part of "Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI
Machine Learning Repository, https://doi.org/10.24432/C50P49, CC BY 4.0.

A CSV file of your own needs a header with `label` and `p0` to `p63`, in any order. `id` is
optional: without it, an example's id is the digest of its pixels, so it does not depend on the
order of the rows. The same source gives the same bytes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

PIXELS = [f"p{i}" for i in range(64)]
HEADER = ["id", "label", *PIXELS]


def digits() -> Iterator[list[str]]:
    """The rows of scikit-learn's digits; the id is the place in the data set."""
    from sklearn.datasets import load_digits

    data = load_digits()
    for index, (pixels, label) in enumerate(zip(data.data, data.target, strict=True)):
        yield [f"digit-{index:04d}", str(int(label)), *(str(int(pixel)) for pixel in pixels)]


def table(path: Path) -> Iterator[list[str]]:
    """The rows of one CSV file; raises ValueError where it is not one."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in HEADER[1:] if name not in (reader.fieldnames or [])]
        if missing:
            raise ValueError(f"{path} lacks the columns {', '.join(missing[:5])}")
        for row in reader:
            if None in row or None in row.values():
                raise ValueError(f"{path}, line {reader.line_num}: another number of values")
            pixels = [row[name].strip() for name in PIXELS]
            name = row.get("id", "").strip()
            name = name or hashlib.sha256(",".join(pixels).encode()).hexdigest()[:16]
            yield [name, row["label"].strip(), *pixels]


def collect(source: str) -> Iterator[list[str]]:
    """The rows of a source; raises ValueError where there is nothing to read."""
    if source == "digits":
        yield from digits()
        return
    place = Path(source)
    files = sorted(place.glob("*.csv")) if place.is_dir() else [place]
    if not files:
        raise ValueError(f"no CSV file in {place}")
    for path in files:
        yield from table(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Collect the examples into one CSV file.")
    parser.add_argument("--source", default="digits", help="`digits`, a CSV file or a folder")
    parser.add_argument("--dataset", type=Path, required=True, help="the CSV file to write")
    args = parser.parse_args()
    args.dataset.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    try:
        with args.dataset.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(HEADER)
            for row in collect(args.source):
                writer.writerow(row)
                rows += 1
    except (OSError, UnicodeDecodeError, ValueError) as error:
        sys.exit(f"cannot collect from {args.source}: {error}")
    print(f"collected {rows} examples from {args.source}")


if __name__ == "__main__":
    main()
