"""Reading for many callers from one process, over HTTP: ``xdner serve``, or :func:`xdner.serving.app.create_app`."""
