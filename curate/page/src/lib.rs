//! Self-contained HTML pages with tables and SVG charts.
