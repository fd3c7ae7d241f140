"""Text: tokenizers, chat formats, and the lexicon of words with its splits."""
