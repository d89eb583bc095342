"""The OpenAI family's dialects beside chat: texts, pictures and sounds, and the reading of uploads that they share."""
