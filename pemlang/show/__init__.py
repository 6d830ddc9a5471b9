"""What a person reads: text, Markdown, HTML, SVG, SARIF."""
