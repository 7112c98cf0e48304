"""The engine of a model that a server computes: token ids out, log-probs in; no torch."""
