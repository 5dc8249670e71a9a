"""Everything that Nest needs, looked at side by side: what is wrong, and what to do about it."""
