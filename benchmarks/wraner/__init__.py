"""IF-WRANER: what is shown to the language model, how it was tuned, and tables and figures of both."""
