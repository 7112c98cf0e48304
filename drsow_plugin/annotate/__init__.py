"""Labels preference data: rows in, the same rows with rewards and preferences out.

layout      which columns hold the prompt and the responses
rows        one row as a prompt and responses
selection   which two of the candidates make a pair
columns     the columns that are added
annotator   the callable for ``datasets.map``
shards      finished work on disk
runner      the same with resume, progress and several processes
summary     what came out, in figures
figures     what came out, in pictures
report      what was done and what came out, for people and for the card
"""
