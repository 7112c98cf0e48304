"""Two models subtracted: the reward."""
