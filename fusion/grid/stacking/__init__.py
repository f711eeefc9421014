"""Stacks: several models trained as one."""
