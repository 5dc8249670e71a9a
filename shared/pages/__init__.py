"""Parts that all HTML pages of Nest share: style sheet, htmx, base layout, templates' environment and headers."""
