"""The typed DAG of a recipe, exact numbers, coefficients, and normal forms."""
