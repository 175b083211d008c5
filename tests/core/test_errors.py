import pickle

import pytest

from pipeline.core import errors


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.PipelineError, 1),
        (errors.UsageError, 2),
        (errors.InputError, 2),
        (errors.ModuleError, 2),
        (errors.OutputError, 2),
        (errors.TooManyFailures, 3),
        (errors.IntegrityError, 1),
    ],
)
def test_exit_codes(kind, exit_code):
    assert kind("text").exit_code == exit_code
    assert issubclass(kind, errors.PipelineError)


def test_the_three_kinds_of_bad_usage_are_usage_errors():
    for kind in (errors.InputError, errors.ModuleError, errors.OutputError):
        assert issubclass(kind, errors.UsageError)


def test_image_error_keeps_its_reason_across_processes():
    copy = pickle.loads(pickle.dumps(errors.ImageError("truncated", "too short")))
    assert (type(copy), copy.reason, str(copy)) == (errors.ImageError, "truncated", "too short")


def test_the_tree_in_the_module_text_names_every_exception():
    kinds = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert kinds == {word for word in errors.__doc__.replace("─", " ").split() if word.endswith(("Error", "Failures"))}
