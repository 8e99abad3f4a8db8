"""proxy/jax_errors.py: the errors of JAX that are told apart by their text."""

import math

import jax
import pytest

from olmix_jax.proxy import jax_errors


def error(text: str) -> Exception:
    return jax.errors.JaxRuntimeError(text)


def test_error_of_a_real_allocation_that_is_too_large_is_out_of_memory():
    with pytest.raises(jax.errors.JaxRuntimeError) as raised:
        jax.block_until_ready(jax.jit(lambda: jax.numpy.zeros(2**50, "int8") + 1)())
    assert jax_errors.is_out_of_memory(raised.value) and not jax_errors.is_timeout(raised.value)


def test_timeouts_and_other_errors_are_told_apart():
    assert jax_errors.is_timeout(error("DEADLINE_EXCEEDED: GetKeyValue() timed out"))
    assert not jax_errors.is_out_of_memory(error("INTERNAL: x")) and not jax_errors.is_timeout(error("INTERNAL: x"))


def test_requested_memory_is_read_from_the_compilers_text():
    text = "RESOURCE_EXHAUSTED: memory required for HLO temporaries ({}) exceeds 1G"
    assert jax_errors.requested_memory(error(text.format("1.5G"))) == 1.5 * 2**30
    assert jax_errors.requested_memory(error(text.format("12"))) == 12
    assert jax_errors.requested_memory(error("RESOURCE_EXHAUSTED: no figure")) == math.inf


def test_first_line_of_an_error_without_text_is_its_type():
    assert jax_errors.first_line(error("one\ntwo")) == "one" and jax_errors.first_line(KeyError()) == "KeyError"
