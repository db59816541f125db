"""The report of a run: one HTML page, made of the JSON documents that its artifacts hold and of nothing else.

`facts` holds these documents, each number on its way to the page keeps the path that it was read by, `sections` lays
them out, `charts` draws them, and `page` makes the HTML.
"""
