"""All that this package uses of TensorFlow beyond its public names, which any release may change."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

# State outside of the graph: an input that nobody feeds, a variable, a table.
_STATE = re.compile(r"Placeholder|VarHandleOp|(Mutable(Dense)?)?HashTable(OfTensors)?(V\d)?|AnonymousHashTable")


def freeze_variables(function: Any) -> Any | None:
    """Returns a concrete function of TensorFlow with the variables that it reads turned into constants.

    The function has only the operations that its output needs. An operation with side effects that runs before the
    output is left out if it needs a table or another resource, as nobody feeds these.

    Args:
      function: what `tf.function(...).get_concrete_function(...)` returns; with one input and one output.

    Returns:
      The function, or None if its output is computed with the help of a table or another resource.
    """
    # The public tf.compat.v1.graph_util does this for graphs of TensorFlow 1 only.
    from tensorflow.python.eager import wrap_function
    from tensorflow.python.framework import convert_to_constants

    with _without_warnings():  # of initialisers of tables, which it cannot serialize
        frozen = convert_to_constants.convert_variables_to_constants_v2(function)
    image, output = function.inputs[0].name, frozen.outputs[0].name
    graph = frozen.graph.as_graph_def()
    nodes = {node.name: node for node in graph.node}
    stateful = _leading_from(_states(nodes, _name(image)), nodes)
    needed = _needed(_name(output), nodes, without=stateful)
    if needed & set(_states(nodes, _name(image))):
        return None
    if all(node.name in needed or node.op == "NoOp" for node in graph.node):
        return frozen
    kept = [node for node in graph.node if node.name in needed]
    for node in kept:
        inputs = [name for name in node.input if _name(name) in needed]
        del node.input[:]
        node.input.extend(inputs)
    pruned = type(graph)()
    pruned.node.extend(kept)
    pruned.library.CopyFrom(graph.library)
    pruned.versions.CopyFrom(graph.versions)
    return wrap_function.function_from_graph_def(pruned, [image], [output])


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _name(tensor: str) -> str:
    """Returns the name of the node of an input `node`, `node:1` or `^node`."""
    return tensor.removeprefix("^").partition(":")[0]


def _states(nodes: Mapping[str, Any], image: str) -> list[str]:
    return [name for name, node in nodes.items() if _STATE.fullmatch(node.op) and name != image]


def _leading_from(names: Iterable[str], nodes: Mapping[str, Any]) -> set[str]:
    """Returns nodes and all that run after them."""
    consumers: dict[str, list[str]] = {}
    for node in nodes.values():
        for name in node.input:
            consumers.setdefault(_name(name), []).append(node.name)
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += consumers.get(name, ())
    return found


def _needed(output: str, nodes: Mapping[str, Any], *, without: set[str]) -> set[str]:
    """Returns the nodes whose values an output needs, and those that run before them, `without` some of the latter."""
    found: set[str] = set()
    waiting = [output]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += [
                _name(item) for item in nodes[name].input if not (item.startswith("^") and _name(item) in without)
            ]
    return found
