"""The plugin for lm-evaluation-harness: the reward model and the preference tasks."""
