"""HTTP in, commands out; owns no state."""
