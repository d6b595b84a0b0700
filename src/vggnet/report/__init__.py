"""Reports as data (sections, tables, figures), rendered as HTML, Markdown or terminal text."""
