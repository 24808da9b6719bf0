"""Build a Trainer from a YAML file, for the command line and for llm-foundry."""
