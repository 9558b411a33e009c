"""Budgets: what was spent of them, and what that refuses, prefers and limits."""
