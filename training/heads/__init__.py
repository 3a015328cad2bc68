"""Heads on frozen features: fitted in closed form, and what each is worth."""
