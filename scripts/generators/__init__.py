"""Statistics of the generated tasks beside what their definitions say."""
