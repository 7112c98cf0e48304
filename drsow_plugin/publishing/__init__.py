"""Publishing a labelled data set on the Hugging Face Hub: the data first, then its card.

publish      the one call
repository   the repository on the Hub: tries, conflicts, errors
card         our section of the card, from the report
readme       merging that into a README that may be the user's
"""
