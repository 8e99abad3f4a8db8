"""olmix_jax: choose the data mixture that a language model is pretrained on.

Text flows to tokens, tokens to a swarm of mixtures, mixtures to proxies trained all at once, proxies to a table, the
table to a law, the law to a proposal, the proposal to a report. The two halves, training and deciding, meet only in
:class:`olmix_jax.swarm.table.SwarmTable`.

Dim letters, used as suffixes of array names throughout:

====== =========================== ====== ===========================
``K``  members of the swarm        ``B``  sequences in a batch
``M``  domains                     ``L``  tokens in a sequence
``N``  evaluation tasks            ``D``  width of the model
``S``  starts of a fit             ``H``  attention heads
``R``  resamples or folds          ``V``  vocabulary
``E``  evaluation examples         ``T``  steps
====== =========================== ====== ===========================
"""
