"""One model, opened: its tokenizer, its template, and what computes its log-probs."""
