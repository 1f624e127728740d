"""From a study to a plan: a graph of stages, each with its content key. No torch is imported here."""
