"""Turn text or token files into token stores and tasks.

``prepare`` reads, cleans and splits the text, trains the tokenizer and writes the stores; ``tasks`` makes the tasks.
"""
