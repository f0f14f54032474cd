"""What each pipeline of the suite gives: outputs of its tasks, and the states that are not success.

With several outputs a task shows the first one.
"""

from __future__ import annotations

from typing import Any


def _about(text: str) -> str:
    """The metadata of an artifact that ``note`` wrote."""
    return f"[('all', {{'parts': ['{text}', True, 0.5]}}), ('note', 'of {text}')]"


_TYPES = (
    '[[3, 2.0, true, "it\'s \\"q\\" \\u00fc", [1, 2.5, {"x": 1}], {"a": 1, "b": [1, 2], "c": 0.5}, '
    'null], ["int", "float", "bool", "str", ["int", "float", {"x": "int"}], {"a": "int", "b": '
    '["int", "int"], "c": "float"}, "NoneType"]]'
)
_GIVEN = (
    '[[3, 2.0, true, "it\'s \\"q\\" \\u00fc", [1.5, "x", true], {"\\u00e9": {"b": 0.5}}, "given"], '
    '["int", "float", "bool", "str", ["float", "str", "bool"], {"\\u00e9": {"b": "float"}}, "str"]]'
)
_WHOLE = (
    '[[1, 1.0, true, "s", [1, {"x": 2}], {"a": 1}, "o"], ["int", "float", "bool", "str", '
    '["int", {"x": "int"}], {"a": "int"}, "str"]]'
)
EXPECTED: dict[str, dict[str, Any]] = {
    "after": {"outputs": {"say": "a", "say-2": "b", "say-3": "c"}},
    "artifacts": {"outputs": {"upper": "ABC3", "upper-2": "ABCNone"}},
    "bare_if_named": {
        "outputs": {"two": True, "two-2": False, "condition-1.say": "yes"},
        "states": {"condition-2": "skipped"},
    },
    "chain": {"outputs": {"add": 3, "add-2": 13}},
    "conditions": {
        "outputs": {
            "flip": True,
            "condition-1.say": "1",
            "condition-2.say-2": "2",
            "condition-3.say-3": "3",
            "condition-4.say-4": "4",
            "condition-5.say-5": "5",
            "condition-7.say-7": "7",
        },
        "states": {"condition-6": "skipped"},
    },
    "container_model": {"outputs": {}},
    "container_outputs": {"outputs": {"length": 5}},
    "containers": {"outputs": {}},
    "exit_handler_bad": {
        "run": "failed",
        "outputs": {
            "last": "FAILED exit-handler-1 n exit-handler-1.fail: exit code 1",
            "exit-handler-1.say": "x",
        },
        "states": {"exit-handler-1": "failed", "exit-handler-1.fail": "failed"},
    },
    "exit_handler_good": {
        "outputs": {"last": "COMPLETE exit-handler-1 fine", "exit-handler-1.say": "x"}
    },
    "format_string": {"outputs": {"add": 5, "say": "hi Ada 3 5"}},
    "if_elif_else": {
        "outputs": {"add": 3, "condition-branches-1.condition-3.say-2": "more"},
        "states": {
            "condition-branches-1.condition-2": "skipped",
            "condition-branches-1.condition-4": "skipped",
        },
    },
    "ignore_failure": {
        "run": "failed",
        "outputs": {"add": 2},
        "states": {"add-2": "skipped", "fail": "failed"},
    },
    "importer": {"outputs": {"about": "gs://bucket/data hi"}},
    "limits": {"outputs": {"add": 3}},
    "loop_artifacts": {"outputs": {"gather": "a+b+c"}},
    "loop_condition": {
        "outputs": {"for-loop-2.1.condition-3.add": 4, "for-loop-2.2.condition-3.add": 5},
        "states": {"for-loop-2.0.condition-3": "skipped"},
    },
    "loop_constant": {
        "outputs": {
            "total": 12,
            "for-loop-2.0.add": 3,
            "for-loop-2.1.add": 4,
            "for-loop-2.2.add": 5,
        }
    },
    "loop_empty": {"outputs": {"nothing": [], "total": 0}},
    "loop_nested": {
        "outputs": {
            "total": 3,
            "for-loop-2.0.add-2": 1,
            "for-loop-2.1.add-2": 2,
            "for-loop-2.0.for-loop-4.0.add": 11,
            "for-loop-2.0.for-loop-4.1.add": 21,
            "for-loop-2.1.for-loop-4.0.add": 12,
            "for-loop-2.1.for-loop-4.1.add": 22,
        }
    },
    "loop_output": {
        "outputs": {
            "numbers": [0, 1, 2, 3],
            "total": 6,
            "for-loop-1.0.add": 0,
            "for-loop-1.1.add": 1,
            "for-loop-1.2.add": 2,
            "for-loop-1.3.add": 3,
        }
    },
    "loop_parameter": {"outputs": {"total": 13, "for-loop-1.0.add": 6, "for-loop-1.1.add": 7}},
    "loop_records": {"outputs": {"total": 33, "for-loop-2.0.add": 11, "for-loop-2.1.add": 22}},
    "loop_records_output": {
        "outputs": {
            "join": "x,y",
            "records": [{"a": 1, "b": "x"}, {"a": 2, "b": "y"}],
            "for-loop-1.0.say": "x",
            "for-loop-1.1.say": "y",
        }
    },
    "metrics": {"outputs": {}},
    "named_outputs": {"outputs": {"add-2": 20, "two": True, "condition-1.add": 22}},
    "nested": {
        "outputs": {
            "add": 12,
            "upper": "X32",
            "inner-pipeline.add": 3,
            "inner-pipeline.add-2": 5,
            "inner-pipeline-2.add": 5,
            "inner-pipeline-2.add-2": 7,
        }
    },
    "nested_if": {
        "outputs": {"condition-1.say-2": "outer"},
        "states": {"condition-1.condition-2": "skipped"},
    },
    "nested_in_loop": {
        "outputs": {
            "total": 11,
            "for-loop-2.0.inner-pipeline.add": 3,
            "for-loop-2.0.inner-pipeline.add-2": 5,
            "for-loop-2.1.inner-pipeline.add": 4,
            "for-loop-2.1.inner-pipeline.add-2": 6,
        }
    },
    "not_a_number": {
        "run": "failed",
        "outputs": {},
        "states": {"condition-1": "skipped", "missing": "failed"},
    },
    "not_a_number_file": {
        "run": "failed",
        "outputs": {"missing-file": "nan"},
        "states": {"number": "failed"},
    },
    "optional": {"outputs": {"add": 3}},
    "retry": {"run": "failed", "outputs": {}, "states": {"fail": "failed"}},
    "run_names": {"outputs": {"names": "RUN|names|RUN|run-names-RUN|"}},
    "types": {"outputs": {"show": _TYPES}},
    "variables": {"outputs": {"env": "hello é"}},
    "artifacts_text": {
        "outputs": {
            "copy": _about("abc"),
            "copy-2": _about("abc"),
        },
    },
    "failing": {"run": "failed", "outputs": {}, "states": {"fail": "failed", "say": "skipped"}},
    "format_text": {
        "outputs": {"say": "it's é", "say-2": "hi Ada: it's é!"},
    },
    "if_else": {
        "outputs": {"condition-branches-1.condition-3.say-2": "less"},
        "states": {"condition-branches-1.condition-2": "skipped"},
    },
    "if_in_pipeline": {"outputs": {}, "states": {"choosing-pipeline.condition-1": "skipped"}},
    "importer_python": {
        "outputs": {"where": "gs://bucket/data hi"},
    },
    "loop_alone": {
        "outputs": {"for-loop-2.0.say": "a", "for-loop-2.1.say": "b", "for-loop-2.2.say": "c"},
    },
    "loop_alone_chain": {
        "outputs": {
            "for-loop-2.0.say": "a",
            "for-loop-2.0.say-2": "a",
            "for-loop-2.1.say": "b",
            "for-loop-2.1.say-2": "b",
        },
    },
    "loop_alone_nested": {
        "outputs": {
            "for-loop-2.0.for-loop-4.0.add": 11,
            "for-loop-2.0.for-loop-4.1.add": 21,
            "for-loop-2.1.for-loop-4.0.add": 12,
            "for-loop-2.1.for-loop-4.1.add": 22,
        },
    },
    "loop_alone_numbers": {
        "outputs": {"for-loop-2.0.add": 3, "for-loop-2.1.add": 4},
    },
    "loop_alone_output": {
        "outputs": {"numbers": [0, 1], "for-loop-1.0.add": 2, "for-loop-1.1.add": 3},
    },
    "loop_alone_parameter": {
        "outputs": {"for-loop-1.0.say": "x", "for-loop-1.1.say": "y"},
    },
    "loop_alone_pipeline": {
        "outputs": {
            "for-loop-2.0.plain-pipeline.add": 3,
            "for-loop-2.0.plain-pipeline.add-2": 5,
            "for-loop-2.0.plain-pipeline.copy": _about("x"),
        },
    },
    "loop_alone_records": {
        "outputs": {"for-loop-2.0.say": "p", "for-loop-2.0.say-2": "q"},
    },
    "nested_deep": {
        "outputs": {
            "add": 107,
            "outer-pipeline.add": 105,
            "outer-pipeline.plain-pipeline.add": 3,
            "outer-pipeline.plain-pipeline.add-2": 5,
            "outer-pipeline.plain-pipeline.copy": _about("x"),
        },
    },
    "nested_plain": {
        "outputs": {
            "add": 12,
            "copy": _about("x"),
            "plain-pipeline.add": 3,
            "plain-pipeline.add-2": 5,
            "plain-pipeline.copy": _about("x"),
            "plain-pipeline-2.add": 5,
            "plain-pipeline-2.add-2": 7,
            "plain-pipeline-2.copy": _about("y"),
        },
    },
    "optional_artifact": {
        "outputs": {"choose": "without-", "choose-2": "withit"},
    },
    "optional_given": {
        "outputs": {"add": 5},
    },
    "reports": {
        "outputs": {},
    },
    "several_outputs": {
        "outputs": {"say": "t", "two": True},
    },
    "types_by_file": {
        "outputs": {"add": 9, "back": {}, "by-file": 7},
    },
    "types_given": {
        "outputs": {"show": _GIVEN},
    },
    "types_passed_on": {
        "outputs": {"back": {"k": [0.5]}, "back-2": {"k": [0.5]}},
    },
    "types_whole": {
        "outputs": {"show": _WHOLE},
    },
    "variable_python": {
        "outputs": {"greeting": "hello é"},
    },
    "constant_of_each_kind": {
        "outputs": {
            "add": -3,
            "back": {"a": [{"b": "c"}]},
            "flip": True,
            "number": 1e-07,
            "say": "",
        },
    },  #
    "nested_optional": {
        "outputs": {
            "defaults-pipeline.add": 7,
            "defaults-pipeline-2.add": 7,
            "defaults-pipeline-3.add": 4,
        },
    },  #
    "one_of_artifact": {
        "outputs": {"copy": _about("not")},
        "states": {"condition-branches-1.condition-2": "skipped"},
    },  #
    "returned_artifact": {
        "outputs": {"copy": "[('note', 'it')]"},
    },  #
    "workspace": {"outputs": {"append": "ab", "append-2": "a"}},
}
