"""The warning filters in pyproject.toml: our own warnings are errors, deprecations in dependencies are not."""

import warnings

import pytest

DEPRECATIONS = DeprecationWarning, PendingDeprecationWarning, FutureWarning, UserWarning


def warn(category: type[Warning], module: str) -> None:
    warnings.warn_explicit("x", category, "file.py", 1, module=module)


@pytest.mark.parametrize("category", DEPRECATIONS)
@pytest.mark.parametrize("module", ["olmix_jax", "olmix_jax.proxy.model", "tests.toy", "configs.paper", "run"])
def test_warning_in_this_repository_is_an_error(category, module):
    """This includes a dependency's warning about how it is called here, which names the caller's module."""
    with pytest.raises(category):
        warn(category, module)


@pytest.mark.parametrize("category", DEPRECATIONS)
@pytest.mark.parametrize("module", ["jax.numpy", "orbax.checkpoint", "flax.core.tests", "runpy"])
def test_warning_in_a_dependency_is_no_error(category, module):
    with warnings.catch_warnings(record=True) as recorded:
        warn(category, module)
    assert [w.category for w in recorded] == [category]


@pytest.mark.parametrize("category", [RuntimeWarning, ResourceWarning])
def test_numerical_warnings_and_unclosed_files_are_errors_everywhere(category):
    """A division by zero is ours also where NumPy or SciPy computes it, and the warning names their module."""
    with pytest.raises(category):
        warn(category, "numpy.linalg")
