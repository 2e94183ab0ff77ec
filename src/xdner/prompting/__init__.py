"""What IF-WRANER asks a language model: versioned templates, prompts with demonstrations, and the method's settings."""
