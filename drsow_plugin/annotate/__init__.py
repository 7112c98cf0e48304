"""Labels preference data: rows in, the same rows with rewards and preferences out.

options     how rows are read and labelled
layout      which columns hold the prompt and the responses
batches     rows of a data set as plain columns
rows        one row as a prompt and responses
selection   which two of the candidates make a pair
columns     the columns that are added
labeller    from rewards to columns; ``labellers`` has one for each kind of data, ``tables`` joins
annotator   the callable for ``datasets.map``; ``reopening`` opens its pair in another process
shards      on-disk cache of rewards, keyed by a hash of prompts and responses
workers     scores shards, here or in several processes, each on one of the ``devices``
runner      labels a whole data set: resume, progress, a report
summary     what came out, as statistics
figures     what came out, as plots
failures    what is said of rows that could not be labelled
report      what was done and what came out, for people and for the card
place       an output on disk, whole or marked as not whole; ``names`` of its files
"""
