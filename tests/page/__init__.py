"""Tests of the page's modules, and of the page as one file."""
