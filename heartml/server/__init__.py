"""A server that takes sound: `heartml serve`.

In: sound files over HTTP. Out: what `heartml predict --json` gives, as JSON. The exported files of the model answer
(`heartml.inference.exported`), in as many threads as there are cores. The same server shows the page that runs the
model in the browser.

`served` holds the model and replaces it when the champion changes; `uploads` turns a request into files; `app` has the
addresses; `mlflow_format` answers as MLflow's own server does.
"""
