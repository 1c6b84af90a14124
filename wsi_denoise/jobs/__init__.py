"""The record of every job: tables, states, and every query."""
