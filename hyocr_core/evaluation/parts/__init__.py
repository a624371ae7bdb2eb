"""Metrics by part of a document: tables, formulas, blocks of text, spotted lines, fields and outline."""
