"""Dead letters: records on ``<topic>.dead``, their reader, and the operators' queue."""
