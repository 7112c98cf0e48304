"""Labels preference data: rows in, the same rows with rewards and preferences out.

options     how rows are read and labelled
layout      which columns hold the prompt and the responses
items       one row as a prompt and responses
tables      rows of a data set as plain columns, in shards, and joined to their labels
scorer      gives rows their rewards: a pair of models, picklable
store       on-disk cache of rewards, keyed by a hash of prompts and responses
drivers     where shards are scored: in this process, in several, or on a cluster
selection   which two of the candidates make a pair
columns     the columns that are added
labeller    from rewards to columns; ``kinds`` has one for each kind of data
annotator   the callable for ``datasets.map``
runner      labels a whole data set: resume, progress, a report
parts       a data set labelled in several runs, each of a shard of its rows, and merged
mapped      the report on rows that ``map`` labelled
actor       scores shards in a process of a cluster
pieces      parquet files at addresses, in pieces that a cluster labels
remote      labels such files: rows never pass through this process
writing     labelled rows on disk as they come
summary     counts rows as they come; says which could not be labelled
statistics  what came out for a split, a group or a domain
plots       what came out, as plots
report      what was done and what came out, for people and for the card
outputs     labelled rows and their report as a folder or a file
place       such an output on disk, whole or marked as not whole; its file names
"""
