"""Write a flow of no-op steps, since metaflow reads it from a file.

``noop_metaflow.py chain|wide TASKS FILE``. A flow has a first and a last step of its own, and one
that joins: a chain of TASKS counts them, independent ones are TASKS besides these three.
"""

import sys
from pathlib import Path

shape, tasks, file = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
STEP = "    @step\n    def {name}(self{more}):\n        {work}\n{after}"


def write(name: str, work: str, following: str = "", more: str = "") -> str:
    after = f"        self.next({following})\n" if following else ""
    return STEP.format(name=name, work=work, after=after, more=more)


if shape == "chain":
    names = ["start", *(f"s{number}" for number in range(1, tasks - 1)), "end"]
    works = ["self.a = 1", *["self.a += 1"] * (tasks - 1)]
    next_ones = [*(f"self.{name}" for name in names[1:]), ""]
    steps = [write(*one) for one in zip(names, works, next_ones, strict=True)]
else:
    steps = [
        write("start", f"self.items = list(range({tasks}))", "self.work, foreach='items'"),
        write("work", "self.a = self.input + 1", "self.join"),
        write("join", "self.count = len(list(inputs))", "self.end", more=", inputs"),
        write("end", f"assert self.count == {tasks}"),
    ]
flow = "from metaflow import FlowSpec, step\n\n\nclass Noop(FlowSpec):\n" + "\n".join(steps)
file.write_text(flow + "\n\nif __name__ == '__main__':\n    Noop()\n")
