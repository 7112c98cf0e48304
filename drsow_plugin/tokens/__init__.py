"""Conversations to token ids: chat templates, control tokens, and the length limit."""
