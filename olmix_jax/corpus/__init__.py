"""Text to tokens: readers of the user's domains and of the built-in corpus, cleaning and splitting, the tokenizer, the
token stores, and the tasks that mixtures are judged on. ``prepare`` runs them in that order."""
