"""The paper's settings on SmolLM2-135M-Instruct, a causal language model: text to text."""
