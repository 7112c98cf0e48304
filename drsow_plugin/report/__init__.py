"""A page to look at labelled rows, and the same of one prompt in a terminal."""
