"""A data set worked on in several runs, each of a shard of its rows, on any scheduler.

Shards are contiguous and of about as many tokens each. Every run finds out by itself which rows
are its own, and says in its report what it went by; what belongs together is merged.

part      one of several shards, as ``3/16``
plan      which rows are in it
content   a hash of the rows of a data set
together  which of several shards belong together, and their rows as one
record    what the report on a shard that is labelled says of it
merging   labelled shards as one data set, with the report of a single run
"""
