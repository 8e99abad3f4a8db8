"""experiments/cheaper_swarms/vocabulary.py: what is compared."""

import numpy as np

from experiments.cheaper_swarms import vocabulary


def test_agreement_is_by_task_and_of_the_mean():
    one_KN = np.array([[1.0, 1.0], [2.0, 4.0], [3.0, 2.0], [4.0, 3.0]])
    assert vocabulary.agreement(one_KN, 2 * one_KN) == {"spearman_task_mean": 1.0, "spearman_of_mean": 1.0}
    swapped = vocabulary.agreement(one_KN, one_KN * [1, -1])
    assert swapped["spearman_task_mean"] == 0 and swapped["spearman_of_mean"] < 1


def test_both_kinds_have_the_same_corpus_and_sampler():
    scale = vocabulary.SCALES["smoke"]
    whole, part = (vocabulary.config_of(scale, 1, part, steps=9 if part else None) for part in (False, True))
    assert whole.corpus == part.corpus and whole.swarm == part.swarm and whole.tasks == part.tasks
    assert (whole.proxy.vocabulary, part.proxy.vocabulary) == (None, scale.small) and scale.small < scale.whole
    assert (whole.train.steps, part.train.steps, part.train.seed) == (scale.steps, 9, 1)
