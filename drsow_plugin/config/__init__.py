"""What was asked for: options, from strings or Python values, as checked configuration."""
