"""Message bus: consuming, executing, committing and publishing messages exactly once in effect."""
