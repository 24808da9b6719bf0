"""A YAML to a Trainer, for the launcher and for llm-foundry."""
