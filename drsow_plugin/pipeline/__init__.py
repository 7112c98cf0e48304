"""From prompts to a tuned model: the steps of a recipe, each a command of its own."""
