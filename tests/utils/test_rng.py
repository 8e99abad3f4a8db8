"""Named draws: repeatable, and independent of each other."""

from olmix_jax.utils import rng


def test_seed_depends_on_config_seed_and_name():
    assert rng.derive(0, "swarm") == rng.derive(0, "swarm")
    assert rng.derive(0, "swarm") != rng.derive(0, "train")
    assert rng.derive(1, "swarm") != rng.derive(0, "swarm")


def test_seed_is_the_same_in_every_version():
    """Files of earlier runs depend on these values."""
    assert (rng.derive(0, "swarm"), rng.derive(7, "corpus")) == (968_247_023, 207_158_357)


def test_seed_fits_in_31_bits():
    assert all(0 <= rng.derive(seed, "a") < 2**31 for seed in range(100))


def test_generator_repeats_its_draws():
    assert rng.generator(0, "a").random() == rng.generator(0, "a").random()
    assert rng.generator(0, "a").random() != rng.generator(0, "b").random()
