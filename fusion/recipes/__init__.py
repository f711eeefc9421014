"""Recipes: settings and published figures of papers."""
