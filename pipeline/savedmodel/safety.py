"""What a module could do beside computing: operations of its graphs that reach files, processes or the network.

A SavedModel is a program, and runs with the rights of whoever loads it. The graphs are searched without loading them:
every graph version, every function, whether a signature uses it or not. Left out is what each SavedModel needs:

- the operations that save and restore its own variables, where nothing but its saver leads to them;
- tables that are filled from a text file among its own assets.

Operations that TensorFlow does not know need no search: it refuses to load a graph with any.
"""

from __future__ import annotations

import functools
import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any, Literal

from pipeline.core.errors import ModuleError

_log = logging.getLogger(__name__)

Reach = Literal["files", "processes", "network", "libraries"]
"""What an operation reaches; `libraries` of native code are only for formats other than SavedModel."""

_NAMES: Mapping[Reach, tuple[str, ...]] = {
    "files": (
        r"ReadFile|WriteFile|DumpTensor|FileSystemSetConfiguration|CalibrationStatisticsSaver",
        r"(Experimental)?MatchingFiles(Dataset)?",
        r"(Experimental)?(TextLine|TFRecord|FixedLengthRecord|WholeFile|LMDB)(Reader|Dataset)(V\d)?",
        r"(Experimental)?(CSV|Sql|SSTable|RecordIO)Dataset(V\d)?",
        r"(Cache|Save|Load|Snapshot|SnapshotChunk|ListSnapshotChunks)Dataset(V\d)?|Snapshot(Nested)?DatasetReader",
        r"(Experimental)?DatasetToTFRecord",
        r"Save|SaveSlices|SaveV2|Restore|RestoreSlice|RestoreV2|MergeV2Checkpoints|DistributedSave|DTensorRestoreV2",
        r"InitializeTableFromTextFile(V2)?|GenerateVocabRemapping|LoadAndRemapMatrix|Skipgram",
        r"CreateSummary(File|Db)Writer|ImportEvent|Write\w*Summary",
        r"InitializeTRTResource|SerializeTRTResource",
    ),
    "processes": (r"PyFunc(Stateless)?|EagerPyFunc",),
    "network": (
        r"(Try)?Rpc\w*|RemoteCall|RemoteFusedGraphExecute|DataService\w+|RegisterDataset(V\d)?",
        r"_?(Host)?(Send|Recv)|Collective\w+|_?Nccl\w+|Gcs\w+|BigQuery\w+|Bigtable\w+",
        r"_?(Configure|Initialize|Connect)\w*Distributed\w*",
    ),
}
_REACHES: Mapping[Reach, re.Pattern[str]] = {reach: re.compile("|".join(names)) for reach, names in _NAMES.items()}
_SAVES = re.compile("Save|SaveSlices|SaveV2|MergeV2Checkpoints|DistributedSave")
_RESTORES = re.compile("Restore|RestoreSlice|RestoreV2")
_TEXT_TABLE = re.compile(r"InitializeTableFromTextFile(V2)?")
# Operations whose attribute names a file or an address, or does not: the values that do not.
_HARMLESS_VALUES = {
    "PrintV2": ("output_stream", re.compile(rb"(?!file://).*", re.DOTALL)),
    "DecodeProtoV2": ("descriptor_source", re.compile(rb"|local://|bytes://.*", re.DOTALL)),
    "EncodeProto": ("descriptor_source", re.compile(rb"|local://|bytes://.*", re.DOTALL)),
    "FixedUnigramCandidateSampler": ("vocab_file", re.compile(rb"")),
    **dict.fromkeys(
        ("DebugIdentity", "DebugIdentityV2", "DebugIdentityV3", "DebugNanCount", "DebugNumericSummary"),
        ("debug_urls", re.compile(rb"")),
    ),
}
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_MAX_DEPTH = 50
_NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True)
class UnsafeOperation:
    """A kind of operation that reaches beyond the module.

    Attributes:
      operation: its name, such as `WriteFile`.
      reaches: what it reaches.
      nodes: where in the module it is, sorted: a node's name, behind its function's and a colon if it is in one.
    """

    operation: str
    reaches: Reach
    nodes: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.nodes) - 1} more" if len(self.nodes) > 1 else ""
        return f"{self.operation} ({self.reaches}; node {self.nodes[0]}{more})"


def find_unsafe_operations(meta_graphs: Iterable[Any]) -> tuple[UnsafeOperation, ...]:
    """Returns the kinds of operations in a SavedModel that reach beyond it, by name.

    Args:
      meta_graphs: its graph versions, as `pipeline.savedmodel.messages.parse_saved_model` gives them.
    """
    found: dict[tuple[str, Reach], set[str]] = {}
    for meta_graph in meta_graphs:
        nodes = itertools.chain(meta_graph.graph_def.node, *(f.node_def for f in meta_graph.graph_def.library.function))
        if not any(_reach_of(node) for node in nodes):
            continue
        for address, operation, reach in _Program(meta_graph).unsafe_nodes():
            found.setdefault((operation, reach), set()).add(str(address))
    return tuple(UnsafeOperation(name, reach, tuple(sorted(nodes))) for (name, reach), nodes in sorted(found.items()))


def list_operations(operations: Iterable[UnsafeOperation]) -> str:
    """Returns the first few operations as text."""
    texts = [str(operation) for operation in operations]
    more = f" and {len(texts) - _NAMED_AT_MOST} more kinds" if len(texts) > _NAMED_AT_MOST else ""
    return ", ".join(texts[:_NAMED_AT_MOST]) + more


def check_operations(handle: str, operations: Sequence[UnsafeOperation], *, allow: bool) -> None:
    """Warns of operations that reach beyond a module, or refuses it.

    Args:
      handle: the module's name.
      operations: what `find_unsafe_operations` found in it.
      allow: whether the user said `--allow_unsafe_module`.

    Raises:
      ModuleError: there are such operations, and they are not allowed.
    """
    if not operations:
        return
    text = f"module {handle} has operations that reach beyond it: {list_operations(operations)}"
    if not allow:
        raise ModuleError(
            f"{text}; expected one that only computes; if you trust whoever made it, say --allow_unsafe_module"
        )
    _log.warning("WARNING: %s. They run with your rights, as --allow_unsafe_module says.", text)


@dataclass(frozen=True, slots=True)
class _Address:
    """A node of a graph, whose function is empty, or of a function."""

    function: str
    node: str

    def __str__(self) -> str:
        return f"{self.function}:{self.node}" if self.function else self.node


class _Program:
    """The nodes of a graph version and of its functions, and what leads to what.

    Nothing that a graph claims is relied on: it may lack inputs, repeat names or turn in circles.
    """

    def __init__(self, meta_graph: Any) -> None:
        self._meta_graph = meta_graph
        bodies = [("", meta_graph.graph_def.node)]
        self._arguments: dict[str, list[str]] = {}
        for function in meta_graph.graph_def.library.function:
            self._arguments[function.signature.name] = [argument.name for argument in function.signature.input_arg]
            bodies.append((function.signature.name, function.node_def))
        self._bodies: dict[str, list[_Address]] = {}
        self._nodes: dict[_Address, list[Any]] = {}
        for name, body in bodies:
            for node in body:
                address = _Address(name, node.name)
                self._bodies.setdefault(name, []).append(address)
                self._nodes.setdefault(address, []).append(node)
        self._assets = {
            _node_name(asset.tensor_info.name) for asset in meta_graph.asset_file_def if _stays_inside(asset.filename)
        }
        self._are_assets: dict[_Address, bool] = {}

    def unsafe_nodes(self) -> Iterator[tuple[_Address, str, Reach]]:
        """Yields the nodes that reach beyond the module: where they are, their operation and what they reach."""
        restored = self._leading_to([_Address("", _node_name(self._meta_graph.saver_def.restore_op_name))])
        used = self._leading_to(self._entries(restored))
        for address, nodes in self._nodes.items():
            for node in nodes:
                reach = _reach_of(node)
                is_save = _SAVES.fullmatch(node.op) and address not in restored
                is_savers = address not in used and (is_save or _RESTORES.fullmatch(node.op))
                is_table = _TEXT_TABLE.fullmatch(node.op) and self._is_asset(address, _input(node, 1))
                if reach and not is_savers and not is_table:
                    yield address, node.op, reach

    def _entries(self, restored: set[_Address]) -> Iterator[_Address]:
        """Yields the nodes that loading or calling the module may ask for, other than through its saver."""
        graph = self._meta_graph
        for signature in graph.signature_def.values():
            yield from (_Address("", _node_name(tensor.name)) for tensor in signature.outputs.values())
        for collection in graph.collection_def.values():
            yield from (_Address("", _node_name(name)) for name in collection.node_list.value)
        for function in graph.object_graph_def.concrete_functions:
            yield from self._bodies.get(function, ())
        # Initialisers of variables.
        for address in self._bodies.get("", ()):
            if address not in restored and any(node.op.startswith("Assign") for node in self._nodes[address]):
                yield address

    def _called(self, node: Any) -> list[str]:
        """Returns the functions that a node may call."""
        names = [node.op]
        for value in node.attr.values():
            names += [value.func.name, *(func.name for func in value.list.func)]
        return [name for name in names if name in self._arguments]

    def _leading_to(self, addresses: Iterable[_Address]) -> set[_Address]:
        """Returns the nodes that run when some are asked for, with the nodes of functions that they call."""
        found: set[_Address] = set()
        waiting = list(addresses)
        while waiting:
            address = waiting.pop()
            if address not in self._nodes or address in found:
                continue
            found.add(address)
            for node in self._nodes[address]:
                waiting += [_Address(address.function, _node_name(name)) for name in node.input]
                for function in self._called(node):
                    waiting += self._bodies.get(function, ())
        return found

    def _is_asset(self, address: _Address, tensor: str, depth: int = 0) -> bool:
        """Says whether an input of a node is the path of one of the module's assets, whoever calls its function."""
        source = _Address(address.function, _node_name(tensor))
        if source not in self._are_assets:
            self._are_assets[source] = False  # as long as it is not known, which ends circles
            if depth < _MAX_DEPTH:
                self._are_assets[source] = self._find_asset(source, depth + 1)
        return self._are_assets[source]

    def _find_asset(self, source: _Address, depth: int) -> bool:
        if source not in self._nodes:
            return self._is_asset_argument(source, depth)
        if len(self._nodes[source]) > 1:
            return False
        node = self._nodes[source][0]
        if node.op == "Identity":
            return self._is_asset(source, _input(node, 0), depth)
        if node.op == "ReadVariableOp":
            # TensorFlow 2 keeps the path in a variable.
            body = [node for address in self._bodies[source.function] for node in self._nodes[address]]
            variable = _input(node, 0)
            values = [_input(n, 1) for n in body if n.op == "AssignVariableOp" and _input(n, 0) == variable]
            return bool(values) and all(self._is_asset(source, value, depth) for value in values)
        return not source.function and source.node in self._assets

    def _is_asset_argument(self, source: _Address, depth: int) -> bool:
        """Says whether an argument of a function is an asset's path in every call."""
        function, arguments = source.function, self._arguments.get(source.function, [])
        if source.node not in arguments:
            return False
        index = arguments.index(source.node)
        callers = [(a, n) for a, nodes in self._nodes.items() for n in nodes if function in self._called(n)]
        given = [
            (node.op in _CALLS or node.op == function) and self._is_asset(caller, _input(node, index), depth)
            for caller, node in callers
        ]
        objects = self._meta_graph.object_graph_def
        if function in objects.concrete_functions:
            # The last arguments of a function of the object graph are objects that it is bound to.
            bound = objects.concrete_functions[function].bound_inputs
            place = index - (len(arguments) - len(bound))
            number = bound[place] if place >= 0 else -1
            given.append(0 <= number < len(objects.nodes) and objects.nodes[number].HasField("asset"))
        return bool(given) and all(given)


def _input(node: Any, index: int) -> str:
    """Returns an input of a node; empty if there is none."""
    return str(node.input[index]) if index < len(node.input) else ""


def _reach_of(node: Any) -> Reach | None:
    harmless = _HARMLESS_VALUES.get(node.op)
    if harmless:
        name, pattern = harmless
        value = node.attr.get(name)
        texts = [value.s, *value.list.s] if value else []
        # What stands for a value that the caller of a function gives is not known to be harmless.
        if not (value and value.placeholder) and all(pattern.fullmatch(text) for text in texts):
            return None
        return "network" if any(text.startswith(b"grpc://") for text in texts) else "files"
    return _reach_of_kind(node.op)


@functools.cache
def _reach_of_kind(operation: str) -> Reach | None:
    return next((reach for reach, pattern in _REACHES.items() if pattern.fullmatch(operation)), None)


def _node_name(tensor: str) -> str:
    """Returns the name of the node that an input or a tensor `^node`, `node`, `node:0` or `node:out:0` belongs to."""
    return tensor.removeprefix("^").partition(":")[0]


def _stays_inside(filename: str) -> bool:
    path, foreign = PurePosixPath(filename), PureWindowsPath(filename)
    return not (path.is_absolute() or foreign.anchor or ".." in path.parts or ".." in foreign.parts)
