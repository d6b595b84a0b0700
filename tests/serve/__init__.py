"""Tests of the server and its page, against real processes."""
