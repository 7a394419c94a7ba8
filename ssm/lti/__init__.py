"""State spaces that do not change with time or input (`dt` given per token excepted), and what they are made of."""
