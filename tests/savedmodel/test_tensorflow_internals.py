import ast
import inspect
from pathlib import Path

import pytest

import pipeline
from pipeline.savedmodel import tensorflow_internals

ROOT = Path(pipeline.__file__).parent
PUBLIC = {"tensorflow", "tensorflow_hub"}


def private_imports(path):
    """Returns the modules inside of TensorFlow that a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module)
    return {name for name in names if name and name.partition(".")[0] in PUBLIC and name not in PUBLIC}


def test_no_other_module_uses_private_names_of_tensorflow():
    own = Path(inspect.getfile(tensorflow_internals))
    assert private_imports(own) == {"tensorflow.python.eager", "tensorflow.python.framework"}
    found = {path.relative_to(ROOT): private_imports(path) for path in ROOT.rglob("*.py") if path != own}
    assert {path: names for path, names in found.items() if names} == {}


def test_private_names_still_do_their_work():
    import tensorflow as tf

    variable = tf.Variable(3.0)
    doubled = tf.function(lambda x: x * variable, input_signature=[tf.TensorSpec([], tf.float32)], autograph=False)
    try:
        frozen = tensorflow_internals.freeze_variables(doubled.get_concrete_function())
    except (ImportError, AttributeError, TypeError) as error:
        pytest.fail(f"TensorFlow {tf.__version__} changed ({error}): adapt pipeline/savedmodel/tensorflow_internals.py")
    assert not frozen.variables
    variable.assign(0)
    (result,) = frozen(tf.constant(2.0))
    assert float(result) == 6
