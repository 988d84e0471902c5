"""Analyses that passes share; nothing here changes the IR."""
