"""Scores over HTTP, and a page for a person; one process, one model, nothing written to disk.

::

    command      commands/serve.py   flags -> a scorer, Settings; refuses what would be open to strangers
    run.py       binds the address, runs uvicorn, stops gracefully
    app.py       the routes; each: guard.py -> body.py -> engine.py -> answers.py
    guard.py     whose request this is: host, origin, token; headers of every answer; counts
    reading.py   the bytes of a body, bounded in size, time and memory
    body.py      multipart or JSON -> HttpScoreRequest, in memory, never more than the limits allow
    engine.py    HttpScoreRequest -> scores: images opened in threads, encoded in batches across clients
    answers.py   scores -> JSON, the same numbers as in the command's table; and its OpenAPI schema
    explaining.py  one image -> its explanation
    export.py    rows of the page -> a csv table or a report
    page/        the page: plain HTML, CSS and modules of JavaScript, all of it served from here
"""
