"""lm-eval task files and the data they ship; see LICENSE-LLMBar.txt for the latter."""
