"""The paper's claim in miniature, from generated slides to a report; docs/reproduction.md has the plan."""
