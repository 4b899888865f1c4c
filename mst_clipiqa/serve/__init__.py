"""Scores over HTTP, and a web page: one process, one model, nothing written to disk.

::

    settings.py    address, token, limits
    run.py         binds the address, runs uvicorn, stops gracefully
    connections.py refuses too many connections, and slow or oversized ones
    app.py         the routes
    middleware.py  checks host, origin and token; adds headers; counts
    metrics.py     what is counted, for Prometheus
    server.py      what the routes share: body -> engine -> scores
    reading.py     the bytes of a body, within the limits of size, time and memory
    form.py        multipart/form-data -> images and prompts
    body.py        a form or JSON -> HttpScoreRequest
    engine.py      HttpScoreRequest -> scores: images decoded in threads, encoded in batches across clients
    results.py     scores -> JSON, with the values of the command's table; and its OpenAPI schema
    explaining.py  one image -> its explanation
    download.py    rows of the page -> a CSV table or a report
    responses.py   JSON responses and errors
    page/          the page: plain HTML, CSS and JavaScript modules
"""
